/* Whole value files: read one, write one.
 *
 * Raw descriptors throughout: a buffered file object costs NFSv4 a GETATTR and a DELEGRETURN more.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_FLAGS (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
/* No O_EXCL: it costs NFSv4 a SETATTR, and a name with 96 random bits needs none. */
#define WRITE_FLAGS (O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW)

#ifdef __APPLE__
#define MTIME(status) ((status)->st_mtimespec)
#else
#define MTIME(status) ((status)->st_mtim)
#endif

static int retried_open(const char *path, int flags, mode_t mode)
{
    int descriptor;

    do
        descriptor = open(path, flags, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static void sign(nfsdict_signature *signature, const struct stat *status)
{
    signature->inode = (uint64_t)status->st_ino;
    signature->size = (uint64_t)status->st_size;
    signature->mtime_ns =
        (int64_t)MTIME(status).tv_sec * 1000000000 + (int64_t)MTIME(status).tv_nsec;
}

/* Fills reading->data from the open descriptor; 0 or an errno. */
static int read_all(int descriptor, nfsdict_reading *reading)
{
    struct stat status;

    if (fstat(descriptor, &status) != 0)
        return errno;
    /* Only regular files are value files; O_NONBLOCK kept a FIFO from blocking the open. */
    if (!S_ISREG(status.st_mode))
        return S_ISDIR(status.st_mode) ? EISDIR : ENXIO;
    sign(&reading->signature, &status);

    size_t size = (size_t)status.st_size;
    reading->data = malloc(size != 0 ? size : 1);
    if (reading->data == NULL)
        return ENOMEM;
    while (reading->size < size) {
        ssize_t got = read(descriptor, reading->data + reading->size, size - reading->size);
        if (got == 0)
            break;
        if (got > 0)
            reading->size += (size_t)got;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

void nfsdict_read_file(nfsdict_reading *reading)
{
    int descriptor = retried_open(reading->path, READ_FLAGS, 0);

    reading->data = NULL;
    reading->size = 0;
    if (descriptor < 0) {
        reading->error = errno;
        return;
    }
    reading->error = read_all(descriptor, reading);
    close(descriptor);
    if (reading->error != 0) {
        free(reading->data);
        reading->data = NULL;
    }
}

/* The umask took bits from open()'s mode that the caller asked for; 0 or an errno. */
static int give_mode(int descriptor, mode_t mode)
{
    struct stat status;

    if (fstat(descriptor, &status) != 0)
        return errno;
    if ((status.st_mode & 07777) != mode && fchmod(descriptor, mode) != 0)
        return errno;
    return 0;
}

static int write_all(int descriptor, nfsdict_writing *writing, int mode, int durable)
{
    struct stat status;
    size_t done = 0;
    int error;

    if (mode >= 0 && (error = give_mode(descriptor, (mode_t)mode)) != 0)
        return error;
    while (done < writing->size) {
        ssize_t put = write(descriptor, writing->data + done, writing->size - done);
        if (put >= 0)
            done += (size_t)put;
        else if (errno != EINTR)
            return errno;
    }
    if (durable)
        while (fsync(descriptor) != 0)
            if (errno != EINTR)
                return errno;
    if (fstat(descriptor, &status) != 0)
        return errno;
    sign(&writing->signature, &status);
    return 0;
}

void nfsdict_write_file(nfsdict_writing *writing, int mode, int durable)
{
    int descriptor =
        retried_open(writing->temporary, WRITE_FLAGS, mode >= 0 ? (mode_t)mode : 0666);

    writing->renaming = 0;
    if (descriptor < 0) {
        writing->error = errno;
        return;
    }
    writing->error = write_all(descriptor, writing, mode, durable);
    /* NFS may report a failed write as late as here. Close before rename: NFSv3 charges
       a GETATTR for the other order. */
    if (close(descriptor) != 0 && writing->error == 0)
        writing->error = errno;
    if (writing->error == 0 && writing->target != NULL
        && rename(writing->temporary, writing->target) != 0) {
        writing->error = errno;
        writing->renaming = 1;
    }
    if (writing->error != 0)
        unlink(writing->temporary);
}
