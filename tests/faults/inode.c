/* Preloaded: a damaged inode. What is called INODE, and what lies below it, can't be opened or
   stat'ed: NUMBER is the errno. Its name is there, and can be listed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int damaged(const char *path)
{
    const char *inode = getenv("INODE"), *number = getenv("NUMBER");
    size_t length = inode == NULL ? 0 : strlen(inode);

    for (const char *at = path; length != 0 && at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, inode, length) == 0 && (at[length] == '/' || at[length] == '\0')) {
            errno = atoi(number);
            return 1;
        }
    }
    return 0;
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
        if (damaged(path))                                                                         \
            return -1;                                                                             \
        return ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(path, flags, mode);                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int directory, const char *path, int flags, ...)                                      \
    {                                                                                              \
        MODE(mode, flags)                                                                          \
        if (damaged(path))                                                                         \
            return -1;                                                                             \
        return ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(directory, path, flags, mode);         \
    }
OPENAT(openat)
OPENAT(openat64)

#define CALL(name, parameters, arguments)                                                          \
    int name parameters                                                                            \
    {                                                                                              \
        if (damaged(path))                                                                         \
            return -1;                                                                             \
        return ((__typeof__(&name))dlsym(RTLD_NEXT, #name))arguments;                              \
    }
CALL(stat, (const char *path, struct stat *status), (path, status))
CALL(stat64, (const char *path, struct stat64 *status), (path, status))
CALL(lstat, (const char *path, struct stat *status), (path, status))
CALL(lstat64, (const char *path, struct stat64 *status), (path, status))
CALL(fstatat, (int directory, const char *path, struct stat *status, int flags),
     (directory, path, status, flags))
CALL(fstatat64, (int directory, const char *path, struct stat64 *status, int flags),
     (directory, path, status, flags))
