/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "fault.h"

#include "shared.h"
#include "trial.h"
#include "victim.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
	const char *from;
	size_t bytes;
	int64_t writes, strikes_at;
	int signal;
} fault;

void fault_watch(const void *from, size_t bytes)
{
	fault.from = from;
	fault.bytes = bytes;
}

void fault_before(int64_t n, int signal)
{
	fault.strikes_at = n ? fault.writes + n : 0;
	fault.signal = signal;
}

int64_t fault_writes(void) { return fault.writes; }

static void strike(volatile char *at, size_t bytes)
{
	fault.strikes_at = 0;
	for (size_t i = 0; fault.signal == SIGKILL && bytes > sizeof(int64_t) && i < bytes; i++)
		at[i] = (char)(0xa5 + i);
	kill(getpid(), fault.signal);
}

static void before_write(volatile void *at, size_t bytes)
{
	if ((size_t)((volatile char *)at - fault.from) < fault.bytes &&
	    ++fault.writes == fault.strikes_at)
		strike(at, bytes);
}

/* ---- what the compiler calls ---- */

#define READ(n) \
	void __tsan_read##n(void *at); \
	void __tsan_read##n(void *at) { (void)at; }
#define WRITE(n) \
	void __tsan_write##n(void *at); \
	void __tsan_write##n(void *at) { before_write(at, n); }
#define ATOMIC(bits) \
	typedef int##bits##_t of##bits; \
	of##bits __tsan_atomic##bits##_load(const of##bits *at, int order); \
	of##bits __tsan_atomic##bits##_load(const of##bits *at, int order) \
	{ \
		(void)order; \
		return __atomic_load_n(at, __ATOMIC_SEQ_CST); \
	} \
	void __tsan_atomic##bits##_store(of##bits *at, of##bits value, int order); \
	void __tsan_atomic##bits##_store(of##bits *at, of##bits value, int order) \
	{ \
		(void)order; \
		before_write(at, sizeof *at); \
		__atomic_store_n(at, value, __ATOMIC_SEQ_CST); \
	} \
	SWAP(bits, strong) \
	SWAP(bits, weak)
#define SWAP(bits, how) \
	int __tsan_atomic##bits##_compare_exchange_##how(of##bits *at, of##bits *from, of##bits to, \
							 int yes, int no); \
	int __tsan_atomic##bits##_compare_exchange_##how(of##bits *at, of##bits *from, of##bits to, \
							 int yes, int no) \
	{ \
		(void)yes; \
		(void)no; \
		before_write(at, sizeof *at); \
		return __atomic_compare_exchange_n(at, from, to, 0, __ATOMIC_SEQ_CST, \
						   __ATOMIC_SEQ_CST); \
	}
#define FENCE(kind) \
	void __tsan_atomic_##kind##_fence(int order); \
	void __tsan_atomic_##kind##_fence(int order) \
	{ \
		(void)order; \
		__atomic_##kind##_fence(__ATOMIC_SEQ_CST); \
	}

READ(1) READ(2) READ(4) READ(8) READ(16)
WRITE(1) WRITE(2) WRITE(4) WRITE(8) WRITE(16)
ATOMIC(32) ATOMIC(64)
FENCE(thread) FENCE(signal)

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_read_range(void *at, size_t bytes);
void __tsan_read_range(void *at, size_t bytes) { (void)at; (void)bytes; }
void __tsan_write_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes) { before_write(at, bytes); }

/* ---- what the library does ---- */

void *fault_copy(void *to, const void *from, size_t bytes)
{
	for (size_t at = 0, step; at < bytes; at += step) {
		step = bytes - at < sizeof(int64_t) ? bytes - at : sizeof(int64_t);
		before_write((char *)to + at, step);
		memcpy((char *)to + at, (const char *)from + at, step);
	}
	return to;
}

void *fault_fill(void *to, int byte, size_t bytes)
{
	before_write(to, bytes);
	return memset(to, byte, bytes);
}

int fault_unlock(pthread_mutex_t *m)
{
	before_write(m, sizeof(int64_t));
	return pthread_mutex_unlock(m);
}

/* ---- a victim that is killed before any write ---- */

const int64_t victim_samples = INT32_MAX;

static int64_t *told;   /* by the child: how many writes */

static void act(const struct victim *v, int64_t strikes_at)
{
	pid_t pid = shared_fork();
	if (!pid) {
		v->before();
		fault_watch(v->memory, v->bytes);
		fault_before(strikes_at, SIGKILL);
		v->act();
		*told = fault_writes();
		_exit(0);
	}
	int status = shared_wait(pid);
	if (status && status != 128 + SIGKILL)
		trial_fail("a child failed: %d", status);
}

int victim_points(const struct victim *v, int *point, int most)
{
	if (!told)
		told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	act(v, 0);
	if (*told > most)
		trial_fail("too many writes: %ld", *told);
	for (int i = 0; i < *told; i++)
		point[i] = i + 1;
	return (int)*told;
}

void victim_killed(const struct victim *v, int64_t after) { act(v, after + 1); }
