/* Whole value files: read one, write one. No Python in here, so callers can drop the GIL. */
#ifndef NFSDICT_FILES_H
#define NFSDICT_FILES_H

#include <stddef.h>
#include <stdint.h>

/* What tells one version of a value file from the next. */
typedef struct {
    uint64_t inode;
    uint64_t size;
    int64_t mtime_ns;
} nfsdict_signature;

typedef struct {
    const char *path;
    char *data; /* malloc'ed on success; the caller frees it */
    size_t size;
    nfsdict_signature signature;
    int error; /* 0 or an errno */
} nfsdict_reading;

typedef struct {
    const char *temporary;
    const char *target; /* NULL: leave the temporary file where it is */
    const char *data;
    size_t size;
    nfsdict_signature signature;
    int error;    /* 0 or an errno */
    int renaming; /* the error came from rename: everything before it had worked */
} nfsdict_writing;

void nfsdict_read_file(nfsdict_reading *reading);
void nfsdict_write_file(nfsdict_writing *writing, int mode, int durable);

#endif
