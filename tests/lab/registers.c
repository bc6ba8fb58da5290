/* Preloaded into the guest's kernel: processors with more registers than it has room for.
 *
 * User-mode Linux 6.1 keeps 2,696 bytes of a process's registers, as many as AVX-512 has. Where the
 * host has AMX, ptrace(2) refuses to set anything but all 11,008. So what the guest sets is set
 * together with what it doesn't know of.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long call(enum __ptrace_request, pid_t, void *, void *);

static call *original;
static char all[1 << 16]; /* the guest's kernel has one thread and small stacks */

__attribute__((constructor)) static void find_original(void)
{
    original = (call *)dlsym(RTLD_NEXT, "ptrace");
}

static long set_registers(pid_t pid, void *kind, const struct iovec *some)
{
    struct iovec whole = {all, sizeof all};
    if (original(PTRACE_GETREGSET, pid, kind, &whole) < 0)
        return -1;
    memcpy(all, some->iov_base, some->iov_len < whole.iov_len ? some->iov_len : whole.iov_len);
    return original(PTRACE_SETREGSET, pid, kind, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_registers(pid, address, data);
    return original(request, pid, address, data);
}
