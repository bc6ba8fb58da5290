/* Preloaded (ld.so(8), LD_PRELOAD): fails, cuts short, or ends the process at, one chosen call of
   those that concern files below a directory. Used by driver.py, through the functions faults_*.

   A file is synced by nobody: fsync is counted, and may fail, but does nothing. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE = 1, AFTER = 2, FOR_GOOD = 4, KILL = 8, SHORT = 16 };
enum { FEW = 10 }; /* bytes that a call is cut short to */

static char below[4096];
static size_t length;
static char ours[65536]; /* descriptors of files there */
static long count, chosen;
static int number, how, armed;
static char names[1 << 16];

void faults_arm(const char *directory, long nth, int error, int manner)
{
    strncpy(below, directory, sizeof below - 1);
    length = strlen(below);
    chosen = nth;
    number = error;
    how = manner;
    count = 0;
    names[0] = '\0';
    armed = 1;
}

/* How many calls there were since faults_arm; nothing fails any more. */
long faults_disarm(void)
{
    armed = 0;
    return count;
}

/* Their names, a line each. */
const char *faults_names(void)
{
    return names;
}

static int concerns(int directory, const char *path)
{
    if (path != NULL && path[0] == '/')
        return strncmp(path, below, length) == 0;
    return directory >= 0 && directory < (int)sizeof ours && ours[directory];
}

/* Whether this call is the one, or one after it, for good. */
static int reached(const char *name)
{
    size_t used = strlen(names);

    if (!armed)
        return 0;
    count++;
    if (used + strlen(name) + 2 < sizeof names)
        sprintf(names + used, "%s\n", name);
    return count == chosen || (count > chosen && (how & FOR_GOOD));
}

/* Whether it fails. */
static int now(const char *name)
{
    return reached(name) && !(how & SHORT);
}

static void end(int when)
{
    if ((how & KILL) && (how & when))
        kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Make the call unless it fails before; RESULT is its own, or -1 and errno. UNDO takes back what
   the caller would have to know of. */
#define FAULTY(type, name, concerned, call, undo)                                                  \
    static __typeof__(&name) real;                                                                 \
    if (real == NULL)                                                                              \
        real = REAL(name);                                                                         \
    if (!(concerned) || !now(#name))                                                               \
        return call;                                                                               \
    end(BEFORE);                                                                                   \
    if (how & AFTER) {                                                                             \
        type result = call;                                                                        \
        end(AFTER);                                                                                \
        if (result < 0)                                                                            \
            return result;                                                                         \
        undo;                                                                                      \
    }                                                                                              \
    errno = number;                                                                                \
    return -1;

static int opened(int descriptor, int concerned)
{
    if (descriptor >= 0 && descriptor < (int)sizeof ours)
        ours[descriptor] = (char)concerned;
    return descriptor;
}

#define MODE(mode, flags)                                                                          \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode = va_arg(arguments, mode_t);                                                          \
        va_end(arguments);                                                                         \
    }

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        MODE(mode, flags)                                                                          \
        int mine = concerns(-1, path);                                                             \
        FAULTY(int, name, mine, opened(real(path, flags, mode), mine), REAL(close)(result))        \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int directory, const char *path, int flags, ...)                                      \
    {                                                                                              \
        MODE(mode, flags)                                                                          \
        int mine = concerns(directory, path);                                                      \
        FAULTY(int, name, mine, opened(real(directory, path, flags, mode), mine),                  \
               REAL(close)(result))                                                                \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor)
{
    int mine = concerns(descriptor, NULL);

    if (mine)
        ours[descriptor] = 0;
    static __typeof__(&close) real;
    if (real == NULL)
        real = REAL(close);
    if (!mine || !now("close"))
        return real(descriptor);
    end(BEFORE);
    real(descriptor); /* it is closed, whatever close says */
    end(AFTER);
    errno = number;
    return -1;
}

/* os.scandir() reads a duplicate of the descriptor that it is given. */
#define FCNTL(name)                                                                                \
    int name(int descriptor, int command, ...)                                                     \
    {                                                                                              \
        static __typeof__(&name) real;                                                             \
        va_list arguments;                                                                         \
        va_start(arguments, command);                                                              \
        void *argument = va_arg(arguments, void *);                                                \
        va_end(arguments);                                                                         \
        if (real == NULL)                                                                          \
            real = REAL(name);                                                                     \
        int result = real(descriptor, command, argument);                                          \
        if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)                                      \
            opened(result, concerns(descriptor, NULL));                                            \
        return result;                                                                             \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define BY_DESCRIPTOR(type, name, parameters, arguments)                                           \
    type name parameters                                                                           \
    {                                                                                              \
        FAULTY(type, name, concerns(descriptor, NULL), real arguments, )                           \
    }
BY_DESCRIPTOR(int, fstat, (int descriptor, struct stat *status), (descriptor, status))
BY_DESCRIPTOR(int, fstat64, (int descriptor, struct stat64 *status), (descriptor, status))

#define TRANSFER(name, parameters, arguments)                                                      \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        static __typeof__(&name) real;                                                             \
        if (real == NULL)                                                                          \
            real = REAL(name);                                                                     \
        int mine = concerns(descriptor, NULL) && reached(#name);                                   \
        if (mine && (how & SHORT))                                                                 \
            size = size < FEW ? size : FEW;                                                        \
        if (!mine || (how & SHORT))                                                                \
            return real arguments;                                                                 \
        end(BEFORE);                                                                               \
        if (how & AFTER)                                                                           \
            real arguments;                                                                        \
        end(AFTER);                                                                                \
        errno = number;                                                                            \
        return -1;                                                                                 \
    }
TRANSFER(read, (int descriptor, void *to, size_t size), (descriptor, to, size))
TRANSFER(pread, (int descriptor, void *to, size_t size, off_t at), (descriptor, to, size, at))
TRANSFER(pread64, (int descriptor, void *to, size_t size, off64_t at), (descriptor, to, size, at))
TRANSFER(write, (int descriptor, const void *from, size_t size), (descriptor, from, size))

ssize_t writev(int descriptor, const struct iovec *parts, int size)
{
    static __typeof__(&writev) real;
    if (real == NULL)
        real = REAL(writev);
    int mine = concerns(descriptor, NULL) && reached("writev");
    if (mine && (how & SHORT)) {
        struct iovec few = parts[0];
        few.iov_len = few.iov_len < FEW ? few.iov_len : FEW;
        return real(descriptor, &few, 1);
    }
    if (!mine)
        return real(descriptor, parts, size);
    end(BEFORE);
    if (how & AFTER)
        real(descriptor, parts, size);
    end(AFTER);
    errno = number;
    return -1;
}

int fsync(int descriptor)
{
    FAULTY(int, fsync, concerns(descriptor, NULL), ((void)descriptor, 0), )
}

#define BY_PATH(name, parameters, arguments)                                                       \
    int name parameters                                                                            \
    {                                                                                              \
        FAULTY(int, name, concerns(-1, path), real arguments, )                                    \
    }
BY_PATH(stat, (const char *path, struct stat *status), (path, status))
BY_PATH(stat64, (const char *path, struct stat64 *status), (path, status))
BY_PATH(lstat, (const char *path, struct stat *status), (path, status))
BY_PATH(lstat64, (const char *path, struct stat64 *status), (path, status))
BY_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
BY_PATH(unlink, (const char *path), (path))
BY_PATH(rename, (const char *path, const char *to), (path, to))
BY_PATH(link, (const char *path, const char *to), (path, to))

#define BELOW(name, parameters, arguments)                                                         \
    int name parameters                                                                            \
    {                                                                                              \
        FAULTY(int, name, concerns(directory, path), real arguments, )                             \
    }
BELOW(fstatat, (int directory, const char *path, struct stat *status, int flags),
      (directory, path, status, flags))
BELOW(fstatat64, (int directory, const char *path, struct stat64 *status, int flags),
      (directory, path, status, flags))
BELOW(mkdirat, (int directory, const char *path, mode_t mode), (directory, path, mode))
BELOW(unlinkat, (int directory, const char *path, int flags), (directory, path, flags))
BELOW(renameat, (int directory, const char *path, int other, const char *to),
      (directory, path, other, to))
BELOW(linkat, (int directory, const char *path, int other, const char *to, int flags),
      (directory, path, other, to, flags))
BELOW(statx, (int directory, const char *path, int flags, unsigned mask, struct statx *status),
      (directory, path, flags, mask, status))

DIR *fdopendir(int descriptor)
{
    static __typeof__(&fdopendir) real;
    if (real == NULL)
        real = REAL(fdopendir);
    if (concerns(descriptor, NULL) && now("fdopendir")) {
        end(BEFORE);
        end(AFTER);
        errno = number;
        return NULL;
    }
    return real(descriptor);
}

DIR *opendir(const char *path)
{
    static __typeof__(&opendir) real;
    if (real == NULL)
        real = REAL(opendir);
    int mine = concerns(-1, path);
    if (mine && now("opendir")) {
        end(BEFORE);
        end(AFTER);
        errno = number;
        return NULL;
    }
    DIR *stream = real(path);
    if (stream != NULL)
        opened(dirfd(stream), mine);
    return stream;
}

int closedir(DIR *stream)
{
    static __typeof__(&closedir) real;
    if (real == NULL)
        real = REAL(closedir);
    opened(dirfd(stream), 0);
    return real(stream);
}

#define READDIR(name, type)                                                                        \
    struct type *name(DIR *stream)                                                                 \
    {                                                                                              \
        static __typeof__(&name) real;                                                             \
        if (real == NULL)                                                                          \
            real = REAL(name);                                                                     \
        if (concerns(dirfd(stream), NULL) && now(#name)) {                                         \
            end(BEFORE);                                                                           \
            end(AFTER);                                                                            \
            errno = number;                                                                        \
            return NULL;                                                                           \
        }                                                                                          \
        return real(stream);                                                                       \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)
