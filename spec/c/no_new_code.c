/* SPDX-License-Identifier: MIT */
/* no_new_code.c - run a program that may not make pages executable which were writable, as under
 * systemd's MemoryDenyWriteExecute=yes: by the kernel's own switch (since 6.3), or else by a filter
 * of system calls. 77 when there is neither.
 *
 *     no_new_code neap run policy.lua
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SET_MDWE = 65, REFUSE_EXEC_GAIN = 1, NEITHER = 77 };

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_IS(value, then, or_else) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, or_else)

/* The low half of an argument. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PROTECTION LOAD(args[2])
#else
#define PROTECTION BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + 4)
#endif

/* EACCES for mprotect with PROT_EXEC, and for mmap with that and PROT_WRITE. */
static int filter(void)
{
	struct sock_filter code[] = {
		LOAD(nr),
		IF_IS(SYS_mprotect, 2, 0),
		IF_IS(SYS_mmap, 4, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		PROTECTION,
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 4, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		PROTECTION,
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_EXEC | PROT_WRITE),
		IF_IS(PROT_EXEC | PROT_WRITE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) && filter())
		return NEITHER;
	execvp(argv[1], argv + 1);
	fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
	return 127;
}
