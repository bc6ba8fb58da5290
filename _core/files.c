/* Whole value files: read one, write one; directories: look at one, list one.
 *
 * Raw descriptors throughout: a buffered file object costs NFSv4 a GETATTR and a DELEGRETURN more.
 */
#define _GNU_SOURCE /* statx, madvise */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/sysmacros.h> /* makedev */
#endif
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#define READ_FLAGS (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
/* No O_EXCL: it costs NFSv4 a SETATTR, and a name with 96 random bits needs none. */
#define WRITE_FLAGS (O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW)

#define PREFIX ".nfsdict-"

/* From this size on, copying a content costs more than asking the caller for room. */
#define LARGE (1 << 20)
/* From this size on, large pages are worth a system call. */
#define HUGE (4 << 20)
/* Parts for one writev: POSIX promises 16 (_XOPEN_IOV_MAX), Linux and macOS take 1024. */
#define PARTS 16

#ifdef __APPLE__
#define MTIME(status) ((status)->st_mtimespec)
#define CTIME(status) ((status)->st_ctimespec)
#else
#define MTIME(status) ((status)->st_mtim)
#define CTIME(status) ((status)->st_ctim)
#endif

static int retried_open(int directory, const char *path, int flags, mode_t mode)
{
    int descriptor;

    do
        descriptor = openat(directory, path, flags, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

/* A time before 1678 or after 2262 doesn't fit into 64 bits: the latest one that fits stands for
   it. That lies ahead of every clock, so it proves nothing. Anybody may give a file such a time. */
static int64_t nanoseconds(int64_t seconds, int64_t rest)
{
    const int64_t most = INT64_MAX / 1000000000;

    return -most <= seconds && seconds < most ? seconds * 1000000000 + rest : INT64_MAX;
}

static void sign(nfsdict_signature *signature, const struct stat *status)
{
    signature->inode = (uint64_t)status->st_ino;
    signature->size = (uint64_t)status->st_size;
    signature->mtime_ns = nanoseconds(MTIME(status).tv_sec, MTIME(status).tv_nsec);
    signature->ctime_ns = nanoseconds(CTIME(status).tv_sec, CTIME(status).tv_nsec);
}

/* Have Linux give large pages to this room, which nobody has touched yet: the faults of small ones
   cost as much as reading. Only a hint; NumPy gives the same for arrays from this size on. */
static void advise(char *room, size_t size)
{
#ifdef MADV_HUGEPAGE
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t skipped = -(size_t)room & (page - 1);

    if (size >= HUGE)
        madvise(room + skipped, size - skipped, MADV_HUGEPAGE);
#else
    (void)room, (void)size;
#endif
}

/* Fills request->data from the open descriptor; 0 or an errno. */
static int read_all(int descriptor, nfsdict_read_request *request, nfsdict_allocate allocate)
{
    struct stat status;

    if (fstat(descriptor, &status) != 0)
        return errno;
    /* Only regular files are value files; O_NONBLOCK kept a FIFO from blocking the open. */
    if (!S_ISREG(status.st_mode))
        return S_ISDIR(status.st_mode) ? EISDIR : ENXIO;
    sign(&request->signature, &status);

    size_t size = (size_t)status.st_size;
    request->data = size < LARGE ? malloc(size != 0 ? size : 1) : allocate(size, &request->owner);
    if (request->data == NULL)
        return ENOMEM;
    advise(request->data, size);
    while (request->size < size) {
        ssize_t got = read(descriptor, request->data + request->size, size - request->size);
        if (got == 0)
            break;
        if (got > 0)
            request->size += (size_t)got;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

void nfsdict_read_file(nfsdict_read_request *request, nfsdict_allocate allocate)
{
    int descriptor = retried_open(AT_FDCWD, request->path, READ_FLAGS, 0);

    request->data = NULL;
    request->size = 0;
    request->owner = NULL;
    if (descriptor < 0) {
        request->error = errno;
        return;
    }
    request->error = read_all(descriptor, request, allocate);
    close(descriptor);
}

/* Opening a directory revalidates it (close-to-open consistency, nfs(5)). */
static int stat_by_open(nfsdict_stat_request *request)
{
    struct stat status;
    int descriptor = retried_open(AT_FDCWD, request->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int error = 0;

    if (descriptor < 0)
        return errno;
    if (fstat(descriptor, &status) != 0)
        error = errno;
    close(descriptor);
    request->mtime_ns = nanoseconds(MTIME(&status).tv_sec, MTIME(&status).tv_nsec);
    request->ctime_ns = nanoseconds(CTIME(&status).tv_sec, CTIME(&status).tv_nsec);
    return error;
}

#ifdef AT_STATX_FORCE_SYNC
/* One call to the server, even where opening costs an ACCESS and a GETATTR. */
static int stat_by_statx(nfsdict_stat_request *request)
{
    struct statx status;

    if (statx(AT_FDCWD, request->path, AT_STATX_FORCE_SYNC,
              STATX_TYPE | STATX_MTIME | STATX_CTIME, &status) != 0)
        return errno;
    if (!S_ISDIR(status.stx_mode))
        return ENOTDIR;
    request->mtime_ns = nanoseconds(status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec);
    request->ctime_ns = nanoseconds(status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec);
    return 0;
}
#endif

void nfsdict_stat(nfsdict_stat_request *request)
{
#ifdef AT_STATX_FORCE_SYNC
    request->error = stat_by_statx(request);
    /* An older kernel has no statx (ENOSYS), or a container's filter refuses it (EPERM). */
    if (request->error != ENOSYS && request->error != EPERM)
        return;
#endif
    request->error = stat_by_open(request);
}

int nfsdict_identify(const char *path, uint64_t *device, uint64_t *inode)
{
    struct stat status;

#ifdef AT_STATX_DONT_SYNC
    struct statx found;
    /* Neither number of an inode ever changes. Asked for times, the client would ask the server. */
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO, &found) == 0) {
        *device = makedev(found.stx_dev_major, found.stx_dev_minor);
        *inode = found.stx_ino;
        return 0;
    }
    if (errno != ENOSYS && errno != EPERM) /* as in nfsdict_stat */
        return errno;
#endif
    if (stat(path, &status) != 0)
        return errno;
    *device = (uint64_t)status.st_dev;
    *inode = (uint64_t)status.st_ino;
    return 0;
}

/* Whether an error of fstatat concerns the whole directory, so that no entry can be read: it was
   replaced, it may not be searched, or the system has run out of something. Other errors concern
   one entry, such as one with a damaged inode. */
static int concerns_all(int error)
{
    return error == ESTALE || error == EBADF || error == EACCES || error == ENOMEM;
}

/* One more than the value of a hexadecimal digit, in lower case as in names; 0 for another
   character. A table, as the digits of a digest can't be predicted. */
static const uint8_t digits[256] = {
    ['0'] = 1, ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

/* The known file of this name, or NULL. */
static nfsdict_known *find_known(const nfsdict_listing *listing, const char *name)
{
    uint8_t digest[32];
    size_t low = 0, high = listing->known_count;

    if (high == 0)
        return NULL;
    for (size_t i = 0; i < sizeof digest; i++) {
        unsigned first = digits[(uint8_t)name[2 * i]];
        unsigned second = first == 0 ? 0 : digits[(uint8_t)name[2 * i + 1]];
        if (second == 0)
            return NULL;
        digest[i] = (uint8_t)((first - 1) << 4 | (second - 1));
    }
    if (strcmp(name + 2 * sizeof digest, listing->extension) != 0)
        return NULL;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(digest, listing->known[middle].digest, sizeof digest);
        if (order == 0)
            return &listing->known[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static int same_signature(const nfsdict_signature *one, const nfsdict_signature *other)
{
    return one->inode == other->inode && one->size == other->size
           && one->mtime_ns == other->mtime_ns && one->ctime_ns == other->ctime_ns;
}

/* Add one entry, unless it is known and the same, or has just been removed; 0 or an errno. */
static int add_entry(nfsdict_listing *listing, int directory, const char *name)
{
    struct stat status;

    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT || concerns_all(errno))
            return errno == ENOENT ? 0 : errno;
        memset(&status, 0, sizeof status);
    }
    nfsdict_signature signature;
    sign(&signature, &status);
    nfsdict_known *known = S_ISREG(status.st_mode) ? find_known(listing, name) : NULL;
    if (known != NULL && same_signature(&known->signature, &signature)) {
        known->same = 1;
        return 0;
    }
    if (listing->count == listing->room) {
        size_t room = 2 * listing->room + 16;
        nfsdict_entry *entries = realloc(listing->entries, room * sizeof *entries);
        if (entries == NULL)
            return ENOMEM;
        listing->entries = entries;
        listing->room = room;
    }
    nfsdict_entry *entry = &listing->entries[listing->count];
    entry->name = strdup(name);
    if (entry->name == NULL)
        return ENOMEM;
    entry->mode = (uint32_t)status.st_mode;
    entry->ctime_ns = nanoseconds(CTIME(&status).tv_sec, CTIME(&status).tv_nsec);
    entry->signature = signature;
    listing->count++;
    return 0;
}

static void drop_entries(nfsdict_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].name);
    listing->count = 0;
}

/* Add all entries; 0 or an errno. */
static int list_once(nfsdict_listing *listing, DIR *stream)
{
    struct dirent *found;
    int directory = dirfd(stream);
    int error;

    for (size_t i = 0; i < listing->known_count; i++)
        listing->known[i].same = 0;
#ifdef POSIX_FADV_DONTNEED
    if (listing->forget)
        posix_fadvise(directory, 0, 0, POSIX_FADV_DONTNEED);
#endif
    while (errno = 0, (found = readdir(stream)) != NULL) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if ((error = add_entry(listing, directory, found->d_name)) != 0)
            return error;
    }
    return errno;
}

static int list_all(nfsdict_listing *listing, DIR *stream)
{
    struct stat status;
    int error;

    if (fstat(dirfd(stream), &status) != 0)
        return errno;
    listing->mtime_ns = nanoseconds(MTIME(&status).tv_sec, MTIME(&status).tv_nsec);
    listing->ctime_ns = nanoseconds(CTIME(&status).tv_sec, CTIME(&status).tv_nsec);
    error = list_once(listing, stream);
    for (int again = 1; error == 0 && again < listing->forget; again++) {
        drop_entries(listing);
        rewinddir(stream);
        error = list_once(listing, stream);
    }
    return error;
}

void nfsdict_list(nfsdict_listing *listing)
{
    /* One descriptor for times and names: each opening costs NFS a GETATTR. */
    int descriptor = retried_open(AT_FDCWD, listing->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *stream = descriptor < 0 ? NULL : fdopendir(descriptor);

    listing->entries = NULL;
    listing->count = listing->room = 0;
    if (stream == NULL) {
        listing->error = errno;
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    listing->error = list_all(listing, stream);
    closedir(stream);
}

void nfsdict_listing_free(nfsdict_listing *listing)
{
    drop_entries(listing);
    free(listing->entries);
}

/* Give the file the mode that the caller asked for, as the umask may have taken bits of it at
   open(); 0 or an errno. */
static int give_mode(int descriptor, mode_t mode)
{
    struct stat status;

    if (fstat(descriptor, &status) != 0)
        return errno;
    if ((status.st_mode & 07777) != mode && fchmod(descriptor, mode) != 0)
        return errno;
    return 0;
}

/* Write these parts one after another, shortening them by what is written; 0 or an errno. */
static int write_parts(int descriptor, struct iovec *parts, size_t count)
{
    while (count > 0) {
        ssize_t put = writev(descriptor, parts, count < PARTS ? (int)count : PARTS);
        if (put < 0) {
            if (errno != EINTR)
                return errno;
            continue;
        }
        size_t done = (size_t)put;
        for (; count > 0 && done >= parts->iov_len; parts++, count--)
            done -= parts->iov_len;
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= done;
        }
    }
    return 0;
}

static int write_all(int descriptor, nfsdict_writing *writing, int mode, int durable)
{
    struct stat status;
    int error;

    if (mode >= 0 && (error = give_mode(descriptor, (mode_t)mode)) != 0)
        return error;
    if ((error = write_parts(descriptor, writing->parts, writing->count)) != 0)
        return error;
    if (durable)
        while (fsync(descriptor) != 0)
            if (errno != EINTR)
                return errno;
    if (fstat(descriptor, &status) != 0)
        return errno;
    sign(&writing->signature, &status);
    return 0;
}

/* Length of the path's directory, the slash included. */
static size_t directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

static unsigned forks; /* how many forks lie between the first process and this one */

static void count_fork(void)
{
    forks++;
}

void nfsdict_files_prepare(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

/* Random bytes from the system, fetched in larger pieces. After a fork the child fetches a new
   piece, so that parent and child never use the same bytes. 0, or -1 and errno. */
static int random_bytes(unsigned char *bytes, size_t size)
{
    static _Thread_local struct {
        unsigned char bytes[240]; /* getentropy gives 256 at most */
        size_t left;
        unsigned forks;
    } pool;

    if (pool.left < size || pool.forks != forks) {
        pool.left = 0;
        if (getentropy(pool.bytes, sizeof pool.bytes) != 0)
            return -1;
        pool.left = sizeof pool.bytes;
        pool.forks = forks;
    }
    pool.left -= size;
    memcpy(bytes, pool.bytes + pool.left, size);
    return 0;
}

/* A temporary name in the target's directory, to be freed; NULL and errno on failure. Its 96 random
   bits are unique over hosts, containers, processes, threads and forks. */
static char *temporary_name(const char *target)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char random[12];
    size_t length = directory_length(target);
    char *name = malloc(length + sizeof PREFIX + 2 * sizeof random);

    if (name == NULL || random_bytes(random, sizeof random) != 0) {
        free(name);
        return NULL;
    }
    memcpy(name, target, length);
    memcpy(name + length, PREFIX, sizeof PREFIX - 1);
    char *digits = name + length + sizeof PREFIX - 1;
    for (size_t i = 0; i < sizeof random; i++) {
        *digits++ = hex[random[i] >> 4];
        *digits++ = hex[random[i] & 15];
    }
    *digits = '\0';
    return name;
}

/* Link the file to its name, unless another file has it; 0 or an errno. If the reply to the first
   link was lost, the repeated one gives EEXIST as well: the name then has our own inode, which is a
   success. */
static int link_file(const nfsdict_writing *writing, int directory, const char *temporary,
                     const char *target)
{
    struct stat status;

    if (linkat(directory, temporary, directory, target, 0) == 0)
        return 0;
    int error = errno;
    if (error == EEXIST && fstatat(directory, target, &status, AT_SYMLINK_NOFOLLOW) == 0
        && (uint64_t)status.st_ino == writing->signature.inode)
        return 0;
    return error;
}

/* Write the file under a temporary name, which is to be freed; NULL after an error. The target is
   relative to the directory's descriptor, or any path with AT_FDCWD. */
static void prepare_file(nfsdict_writing *writing, int directory, const char *target,
                         const nfsdict_write_options *options)
{
    char *temporary = temporary_name(target);

    writing->step = NFSDICT_WRITING;
    writing->temporary = NULL;
    if (temporary == NULL) {
        writing->error = errno;
        return;
    }
    int descriptor = retried_open(directory, temporary, WRITE_FLAGS,
                                  options->mode >= 0 ? (mode_t)options->mode : 0666);
    if (descriptor < 0) {
        writing->error = errno;
        if (errno == EIO || errno == ETIMEDOUT)
            unlinkat(directory, temporary, 0); /* if the server made it and the reply was lost */
        free(temporary);
        return;
    }
    writing->error = write_all(descriptor, writing, options->mode, options->durable);
    /* NFS may report a failed write as late as here. Close before rename: NFSv3 charges
       a GETATTR for the other order. */
    if (close(descriptor) != 0 && writing->error == 0)
        writing->error = errno;
    if (writing->error == 0) {
        writing->temporary = temporary;
        return;
    }
    unlinkat(directory, temporary, 0);
    free(temporary);
}

/* Give the file its name; both names are relative to the directory's descriptor. */
static void publish_file(nfsdict_writing *writing, int directory, const char *temporary,
                         const char *target, int exclusive)
{
    writing->step = NFSDICT_PUBLISHING;
    writing->error = exclusive ? link_file(writing, directory, temporary, target)
                     : renameat(directory, temporary, directory, target) != 0 ? errno
                                                                              : 0;
    if (writing->error != 0 || exclusive)
        unlinkat(directory, temporary, 0);
}

/* Do what the options ask for with one file, whose names have so many bytes of a directory's path
   before them that are left out. */
static void write_file(nfsdict_writing *writing, int directory, size_t skipped,
                       const nfsdict_write_options *options)
{
    const char *target = writing->target + skipped;

    if (options->part == NFSDICT_PUBLISH) {
        publish_file(writing, directory, writing->temporary + skipped, target, 0);
        return;
    }
    prepare_file(writing, directory, target, options);
    if (writing->error != 0 || options->part == NFSDICT_PREPARE)
        return;
    publish_file(writing, directory, writing->temporary, target, options->exclusive);
    free(writing->temporary);
    writing->temporary = NULL;
}

static int open_directory(const char *target)
{
    char *path = strndup(target, directory_length(target));

    if (path == NULL)
        return -1;
    int descriptor = retried_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int error = errno;
    free(path);
    errno = error;
    return descriptor;
}

/* fsync a directory; 0 or an errno. */
static int sync_directory(int descriptor)
{
    while (fsync(descriptor) != 0) {
        /* File systems without an fsync for directories answer with one of the last three. */
        if (errno != EINTR)
            return errno == EINVAL || errno == ENOTSUP || errno == EOPNOTSUPP ? 0 : errno;
    }
    return 0;
}

/* Write a run of files in one directory. With synced, open the directory first, write by its
   descriptor and fsync it at the end. */
static void write_run(nfsdict_writing *writings, size_t count, const nfsdict_write_options *options)
{
    int synced = options->synced;
    size_t skipped = synced ? directory_length(writings[0].target) : 0;
    int directory = synced ? open_directory(writings[0].target) : AT_FDCWD;
    int error = synced && directory < 0 ? errno : 0;
    int published = 0;

    for (size_t i = 0; i < count; i++) {
        writings[i].step = options->part == NFSDICT_PUBLISH ? NFSDICT_PUBLISHING : NFSDICT_WRITING;
        writings[i].error = error;
        if (error == 0)
            write_file(&writings[i], directory, skipped, options);
        else if (options->part == NFSDICT_PUBLISH)
            unlink(writings[i].temporary);
        else
            writings[i].temporary = NULL;
        published |= writings[i].error == 0;
    }
    if (!synced || directory < 0)
        return;
    error = published ? sync_directory(directory) : 0;
    close(directory);
    for (size_t i = 0; error != 0 && i < count; i++)
        if (writings[i].error == 0) {
            writings[i].error = error;
            writings[i].step = NFSDICT_SYNCING;
        }
}

static int same_directory(const char *one, const char *other)
{
    size_t length = directory_length(one);

    return length == directory_length(other) && memcmp(one, other, length) == 0;
}

void nfsdict_write_files(nfsdict_writing *writings, size_t count,
                         const nfsdict_write_options *options)
{
    size_t run = 0; /* where the run of targets in one directory begins */

    for (size_t i = 1; i <= count; i++) {
        if (i < count && same_directory(writings[run].target, writings[i].target))
            continue;
        write_run(writings + run, i - run, options);
        run = i;
    }
}
