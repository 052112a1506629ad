/* SPDX-License-Identifier: MIT */
/* wait.c - waiting for those who may block: a thread, its own engine, and limiters of many.
 *
 * An engine is one thread's, its lines are too; but a rate, a semaphore and a pause are words that
 * any thread may touch. So a thread waits in a line of one, in its own engine, for words of all:
 *
 *      thread 1   engine 1 --ask--.                    .--ask-- engine 2   thread 2
 *         sleeps until it is due   `--> shared word <--'         gives, and rings
 *         or the bell is rung                                      |
 *            ^                            bell                     |
 *            `------ wakes all <------ rung, asleep <--------------'
 *
 * What time brings needs no bell: the engine knows when, and the thread sleeps until then. What
 * others bring nobody can know in advance. Looking every millisecond would do; but then a hundred
 * threads that wait for a lock wake a hundred thousand times a second for nothing. So who gives
 * says so, and a futex makes that cheap: a giver adds one, and enters the kernel only when somebody
 * sleeps. Everybody is woken, for who comes first may be held up by something else, and then the
 * permit is the next one's. That is for tens of threads at one bell; thousands are what one engine
 * has lines for.
 *
 * No ring is lost. The sleeper counts itself in, reads 'rung', asks its limiters, and sleeps only if
 * 'rung' is still what it read; the giver gives, moves 'rung', and looks who sleeps. All four touch
 * the bell in one order that everybody agrees on (sequential consistency), so of
 *
 *      sleeper:  asleep += 1;  heard = rung;  ask          giver:  give;  rung += 1;  asleep?
 *
 * either the sleeper asked after the give, or the giver sees it asleep and 'rung' has moved.
 *
 * The clock is the loop's, CLOCK_BOOTTIME, and a futex does not know it: it is told how long, in the
 * time of a machine that does not sleep. So nobody sleeps for more than a second at once, and after
 * the machine has slept looks at the clock that soon. It asks anew then, too: what was given without
 * a word is not waited for in vain.
 *
 * Nobody rings for a process that was killed. So who waits for limiters of a segment looks for the
 * dead himself, before each sleep, which is half a second at most there; and what comes back that way
 * he tells the others.
 */
#define _GNU_SOURCE
#include "keyed.h"
#include "segment.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const neap_ns SECOND_NS = 1000000000, REAP_NS = 400000000;

/* Until then, or the bell is rung once more than was heard, or for no reason. */
static void sleep_until(neap_ns until, neap_ns most_ns, struct neap_bell *bell, uint32_t heard)
{
	neap_ns left = until - neap_loop_now(NULL);
	if (left <= 0)
		return;
	if (left > most_ns)
		left = most_ns;
	struct timespec t = {left / SECOND_NS, left % SECOND_NS};
	syscall(SYS_futex, &bell->rung, FUTEX_WAIT, heard, &t, NULL, 0);
}

/* Others may have changed any of them. */
static void ask_anew(struct neap_engine *e, const struct neap_all *all, neap_ns now)
{
	for (int32_t i = 0; i < all->count; i++)
		if (i == 0 || all->terms[i].limiter != all->terms[i - 1].limiter)
			neap_engine_touch(e, all->terms[i].limiter, now);
}

/* The segment a term's limiter is in, or NULL. */
static struct neap_header *segment_of(const struct neap_limiter *l)
{
	if (l->kind == NEAP_CONDITIONAL)
		l = l->as.conditional.of;
	else if (l->kind == NEAP_KEYED)
		l = l->as.keyed->slot ? &l->as.keyed->slot->limiter : l;
	return l->shared ? neap_header_of(l) : NULL;
}

/* When there are segments, give back there what the dead held: 1. */
static int reap(const struct neap_all *all, struct neap_bell *bell)
{
	struct neap_header *last = NULL;
	int64_t back = 0;
	for (int32_t i = 0; i < all->count; i++) {
		struct neap_header *h = segment_of(all->terms[i].limiter);
		if (h && h != last)
			back += neap_header_reap(h);
		last = h ? h : last;
	}
	if (back)
		neap_ring(bell);
	return last != NULL;
}

int neap_wait(struct neap_engine *e, const struct neap_request *r, struct neap_bell *bell,
	      struct neap_answer *a)
{
	struct neap_bell silent = {0, 0};
	struct neap_completion end;
	int code = neap_engine_acquire(e, r, neap_loop_now(NULL), a);
	if (code != NEAP_OK || a->status != NEAP_WAITING)
		return code;
	struct neap_bell *b = bell ? bell : &silent;
	neap_ns most_ns = SECOND_NS, reaped = 0;
	__atomic_fetch_add(&b->asleep, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		neap_ns now = neap_loop_now(NULL);
		if (now - reaped >= REAP_NS) {
			reaped = now;
			most_ns = reap(r->all, b) ? REAP_NS : SECOND_NS;
		}
		uint32_t heard = __atomic_load_n(&b->rung, __ATOMIC_SEQ_CST);
		now = neap_loop_now(NULL);
		ask_anew(e, r->all, now);
		if (neap_engine_advance(e, now))
			break;
		sleep_until(neap_engine_next_due(e), most_ns, b, heard);
	}
	__atomic_fetch_sub(&b->asleep, 1, __ATOMIC_SEQ_CST);
	neap_engine_drain(e, &end, 1);
	assert(end.ticket == a->ticket);
	*a = (struct neap_answer){
		.status = end.status, .bound = end.bound, .at = end.at, .on = end.on};
	return NEAP_OK;
}

void neap_ring(struct neap_bell *bell)
{
	__atomic_fetch_add(&bell->rung, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&bell->asleep, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &bell->rung, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
