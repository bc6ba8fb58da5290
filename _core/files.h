/* Whole value files: read one, write one; directories: look at one, list
 * one. No Python in here, so callers can drop the GIL.
 */
#ifndef NFSDICT_FILES_H
#define NFSDICT_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Tells one version of a value file from the next. */
typedef struct {
    uint64_t inode;
    uint64_t size;
    int64_t mtime_ns;
    int64_t ctime_ns;
} nfsdict_signature;

typedef struct {
    const char *path;
    char *data; /* on success, size bytes of content */
    size_t size;
    void *owner; /* the object that the caller's function made for data; NULL: data is malloc'ed */
    nfsdict_signature signature;
    int error; /* 0 or an errno */
} nfsdict_read_request;

/* Called for a large file, which is open meanwhile: returns room for its content, and the room's
   owner; NULL if there is no memory. */
typedef char *(*nfsdict_allocate)(size_t size, void **owner);

/* The steps of a write; an error belongs to the step that failed. */
enum { NFSDICT_WRITING, NFSDICT_PUBLISHING, NFSDICT_SYNCING };

typedef struct {
    const char *target;
    char *temporary; /* of a prepared file; to be freed if nfsdict_write_files has set it */
    struct iovec *parts; /* of the content, one after another; changed by the write */
    size_t count;
    nfsdict_signature signature;
    int error; /* 0 or an errno */
    int step;
} nfsdict_writing;

/* The caller frees data, or its owner, after an error too. A small content is malloc'ed, so that
   many are read without calling back; a large one is read into room from the caller's function. */
void nfsdict_read_file(nfsdict_read_request *request, nfsdict_allocate allocate);

typedef struct {
    const char *path;
    int64_t mtime_ns;
    int64_t ctime_ns;
    int error; /* 0 or an errno */
} nfsdict_stat_request;

/* A directory's times, by the server's word. */
void nfsdict_stat(nfsdict_stat_request *request);

/* Which directory has the path, by what the client remembers of the name: no call to the server.
   0 or an errno. */
int nfsdict_identify(const char *path, uint64_t *device, uint64_t *inode);

/* An entry of a directory. All numbers are 0 if its attributes can't be read. */
typedef struct {
    char *name;
    uint32_t mode;
    int64_t ctime_ns;
    nfsdict_signature signature;
} nfsdict_entry;

/* A value file that is known. */
typedef struct {
    uint8_t digest[32];
    nfsdict_signature signature;
    int same; /* whether the listing has it with this signature */
} nfsdict_known;

typedef struct {
    const char *path;
    int forget; /* so often the client reads the directory anew, even if its times show no change */
    nfsdict_known *known; /* sorted by their digests; those that are the same aren't listed */
    size_t known_count;
    const char *extension; /* of the known files' names, after the digest */
    int64_t mtime_ns; /* the directory's times from before it was read */
    int64_t ctime_ns;
    nfsdict_entry *entries; /* to be freed by nfsdict_listing_free, after an error too */
    size_t count;
    size_t room;
    int error; /* 0 or an errno */
} nfsdict_listing;

/* A directory's times, by the server's word, and its entries with their attributes. */
void nfsdict_list(nfsdict_listing *listing);
void nfsdict_listing_free(nfsdict_listing *listing);

/* What of a write is done by one call: files are prepared under temporary names and then get their
   own, or one of both. */
enum { NFSDICT_WHOLE, NFSDICT_PREPARE, NFSDICT_PUBLISH };

/* How files are written. */
typedef struct {
    int part;
    int mode;      /* permission bits, -1: what the umask leaves */
    int durable;   /* fsync each file */
    int synced;    /* fsync each directory, once after the last of a run of targets in it */
    int exclusive; /* publish by link, which fails if there is a file, and not by rename */
} nfsdict_write_options;

/* To be called once, before files are written. */
void nfsdict_files_prepare(void);

/* Write each file under a temporary name beside its target, and publish it. Prepare only: without
   synced and exclusive. Publish only: without exclusive. */
void nfsdict_write_files(nfsdict_writing *writings, size_t count,
                         const nfsdict_write_options *options);

#endif
