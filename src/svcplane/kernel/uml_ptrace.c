/* ptrace() for user-mode Linux on a host with more registers than it knows; see uml_registers.py.
 *
 * PTRACE_SETREGSET gets the set that the caller holds, and zeros, "as at the beginning", for what the host has
 * beyond.  Every other call goes on as it is; the three that peek give the word as their result, as glibc has it.
 */
#define PTRACE_PEEKTEXT 1
#define PTRACE_PEEKUSER 3
#define PTRACE_SETREGSET 0x4205
#define NT_X86_XSTATE 0x202
#define NR_PTRACE 101

struct iovec {
    long *base;
    unsigned long length;
};

long syscall(long number, ...);

/* Longer than any host's set: the host takes what it has.  User-mode Linux has one thread that sets registers. */
static long whole[1 << 13];

long ptrace(int request, long pid, long address, void *data)
{
    struct iovec *held = data, all = { whole, sizeof whole };
    long word, result;
    unsigned long i;

    if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
        result = syscall(NR_PTRACE, (long)request, pid, address, &word);
        return result < 0 ? result : word;
    }
    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE && held->length <= sizeof whole) {
        for (i = 0; i < held->length / sizeof *whole; i++)
            whole[i] = held->base[i];
        data = &all;
    }
    return syscall(NR_PTRACE, (long)request, pid, address, data);
}
