/* Whole value files: read one, write one; directories: look at one, list
 * one. No Python in here, so callers can drop the GIL.
 */
#ifndef NFSDICT_FILES_H
#define NFSDICT_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What tells one version of a value file from the next. */
typedef struct {
    uint64_t inode;
    uint64_t size;
    int64_t mtime_ns;
    int64_t ctime_ns;
} nfsdict_signature;

typedef struct {
    const char *path;
    char *data; /* on success, so much of it as size tells */
    size_t size;
    void *owner; /* what the caller's function made for the data, NULL: data is malloc'ed */
    nfsdict_signature signature;
    int error; /* 0 or an errno */
} nfsdict_read_request;

/* Room for a large file's content, and its owner; NULL: there is none. The file is open meanwhile. */
typedef char *(*nfsdict_allocate)(size_t size, void **owner);

/* How far a write came; an error belongs to the step that it failed at. */
enum { NFSDICT_WRITING, NFSDICT_PUBLISHING, NFSDICT_SYNCING };

typedef struct {
    const char *target;
    struct iovec *parts; /* of the content, one after another; used up */
    size_t count;
    nfsdict_signature signature;
    int error; /* 0 or an errno */
    int step;
} nfsdict_writing;

/* The caller frees data, or its owner, after an error too. Small contents are malloc'ed, so that many
   are read without asking the caller; a large one is read into what the caller makes of it. */
void nfsdict_read_file(nfsdict_read_request *request, nfsdict_allocate allocate);

typedef struct {
    const char *path;
    int64_t mtime_ns;
    int64_t ctime_ns;
    int error; /* 0 or an errno */
} nfsdict_stat_request;

/* A directory's times, by the server's word. */
void nfsdict_stat(nfsdict_stat_request *request);

/* All numbers are 0 if the system can't tell its attributes. */
typedef struct {
    char *name;
    uint32_t mode;
    int64_t ctime_ns;
    nfsdict_signature signature;
} nfsdict_entry;

typedef struct {
    const char *path;
    int forget; /* the client reads it anew even if its times show no change */
    int64_t mtime_ns; /* as they were before it was read */
    int64_t ctime_ns;
    nfsdict_entry *entries; /* to be freed by nfsdict_listing_free, after an error too */
    size_t count;
    size_t room;
    int error; /* 0 or an errno */
} nfsdict_listing;

/* A directory's times, by the server's word, and what is in it, with attributes. */
void nfsdict_list(nfsdict_listing *listing);
void nfsdict_listing_free(nfsdict_listing *listing);

/* How files are written. */
typedef struct {
    int mode;      /* permission bits, -1: what the umask leaves */
    int durable;   /* fsync each file */
    int synced;    /* fsync each directory, once after the last of a run of targets in it */
    int exclusive; /* publish by link, which fails where a file is already, not by rename */
} nfsdict_write_options;

/* To be called once, before files are written. */
void nfsdict_files_prepare(void);

/* Write each file under a temporary name beside its target, and publish it. */
void nfsdict_write_files(nfsdict_writing *writings, size_t count,
                         const nfsdict_write_options *options);

#endif
