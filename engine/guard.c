/* SPDX-License-Identifier: MIT */
/* guard.c - limiters that processes share, any of which may be killed at any instruction.
 *
 * A rate and a pause are one word, and need no guard to be taken from (word.c). All else is several
 * words that belong together: a log and its sum, a breaker's counts, permits and who holds them. In
 * a segment each such limiter has a guard, and whoever is at it is alone:
 *
 *     enter      a mutex of the robust kind: when its owner dies the kernel says so to the next one
 *     begin      what it is now is copied beside it, then 'armed'
 *     ...        the code of the limiter, the same as on the heap, writes where it likes
 *     commit     not armed any more: here the change is made
 *     leave
 *
 * Who enters after a death and finds it armed puts back what was before: the dead one was killed
 * before it did anything, or after it had done all of it. That holds between any two instructions,
 * also of who puts back, which can be done again. What must be in order is what one processor
 * writes, as it would itself read it, so a barrier for the compiler is enough: before another sees
 * that the owner is dead the kernel has stopped it, with all that it wrote.
 *
 * Why the kernel's mutex and not a word with the owner's name: only the kernel knows at once, and
 * without a race, that an owner is dead. It costs 15 ns; a take in all, and a give, 20 to 40. And why
 * an undo copy, not two versions that take turns: a log of 10,000 entries would be copied for each
 * take, where the undo copy is of what may be written, two entries of it. Where that cannot be said
 * beforehand, all of a log is copied, into the other half of its memory. An owner that is stopped,
 * not dead, keeps the others waiting until it goes on.
 *
 * Permits have a holder, so that they come back when it dies: a count for each process beside the
 * limiter, written in the same change as the permits. So at any moment that others can see
 *
 *     in_use = holding[0] + holding[1] + ... , each of them 0 or more
 *
 * and to give back what the dead held is one more change: never too much, never too little, never
 * twice. A process gives back what it holds and no more. The record of a dead one goes to another only
 * after all its permits were given back, at each limiter; and whoever gives them back looks, under
 * the guard, that the record is still that of the dead.
 *
 * Rates are taken from by compare-and-swap, beside any guard. So who changes a rate (its numbers are
 * several words) makes the version odd, holds its word, and writes; who takes looks at the version
 * before and after he plans: if it moved, or is odd, the plan was of no rate there ever was. After
 * that look the swap succeeds only if the word is what it was: if no change came, or one that left
 * what is spent as it is, in the same units, before which the take may as well have been.
 *
 * Pointers differ between processes, so who enters first sets the one that his log has; distances
 * from the beginning of the segment do not.
 *
 * Order, so that nobody waits in a circle: names, then stripes (stripes.c), then guards by segment and
 * place, then that of a rate, then records.
 */
#include "change.h"
#include "segment.h"

#include <errno.h>
#include <string.h>

static void barrier(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

/* ---- mutexes ---- */

void neap_mutex_init(pthread_mutex_t *m)
{
	pthread_mutexattr_t how;
	pthread_mutexattr_init(&how);
	pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_settype(&how, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(m, &how);
	pthread_mutexattr_destroy(&how);
}

int neap_mutex_lock(pthread_mutex_t *m)
{
	int failed = pthread_mutex_lock(m);
	assert(failed == 0 || failed == EOWNERDEAD);
	return failed == EOWNERDEAD;
}

static void lock_records(struct neap_header *h)
{
	if (neap_mutex_lock(&h->records))   /* 'used' is written last, so nothing is half done */
		pthread_mutex_consistent(&h->records);
}

/* ---- who holds permits ---- */

static int has_permits(const struct neap_limiter *l)
{
	return l->kind == NEAP_SEMAPHORE || l->kind == NEAP_ADAPTIVE;
}

static int64_t in_use(const struct neap_limiter *l)
{
	return l->kind == NEAP_SEMAPHORE ? l->as.semaphore.in_use
	       : l->kind == NEAP_ADAPTIVE ? l->as.adaptive.in_use : 0;
}

/* The record of a process, the one that it had when it had closed the segment with permits out, or
 * else a free one; 0: there is none. */
static int32_t record_for(const struct neap_header *h, const struct neap_process *own)
{
	int32_t free = 0;
	for (int32_t i = h->processes_max; i > 0; i--) {
		if (neap_process_is(&h->process[i], own))
			return i;
		if (!h->process[i].used)
			free = i;
	}
	return free;
}

/* Take a record, on first use: not in a process that only forks others. */
__attribute__((cold)) static void ask_for_record(struct neap_header *h, struct neap_here *here)
{
	const struct neap_process own = {1, here->pid, here->started};
	lock_records(h);
	if (!here->asked) {
		int32_t i = record_for(h, &own);
		struct neap_process *p = &h->process[i];
		if (i && !p->used) {
			p->pid = own.pid;
			p->started = own.started;
			barrier();
			p->used = 1;
		}
		here->process = i;
		__atomic_store_n(&here->asked, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&h->records);
}

int32_t neap_guard_record(const struct neap_limiter *l)
{
	struct neap_header *h = neap_header_of(l);
	struct neap_here *here = neap_here_of(h);
	if (!__atomic_load_n(&here->asked, __ATOMIC_ACQUIRE))
		ask_for_record(h, here);
	return here->process;
}

struct neap_process neap_guard_process(struct neap_header *h, int32_t process)
{
	lock_records(h);
	struct neap_process p = h->process[process];
	pthread_mutex_unlock(&h->records);
	return p;
}

void neap_guard_forget(struct neap_header *h, int32_t process, const struct neap_process *p)
{
	lock_records(h);
	if (neap_process_is(&h->process[process], p))
		h->process[process].used = 0;
	pthread_mutex_unlock(&h->records);
}

/* ---- what was before ---- */

static char *half_of(const struct neap_slot *s, int64_t half)
{
	char *base = (char *)neap_header_of(&s->limiter);
	return base + s->place.at + (half ? s->place.half_bytes : 0);
}

void neap_guard_point(struct neap_slot *s)
{
	struct neap_limiter *l = &s->limiter;
	void *log = half_of(s, s->place.half);
	if (l->kind == NEAP_WINDOW)
		l->as.window.log = log;
	else if (l->kind == NEAP_BREAKER)
		l->as.breaker.memory = log;
}

/* Copy entries of the ring between the halves, each to the place that it has. */
static void copy_log(const struct neap_slot *s, const struct neap_limiter *l, char *to,
		     const char *from)
{
	size_t size = l->kind == NEAP_WINDOW ? sizeof(struct neap_stamp) : sizeof(int64_t);
	uint64_t first = l->kind == NEAP_WINDOW ? l->as.window.first : 0;
	uint64_t ring = l->kind == NEAP_WINDOW ? l->as.window.size : s->count;
	for (uint64_t i = 0; i < s->count; i++) {
		uint64_t at = (first + s->from + i) % ring;
		memcpy(to + at * size, from + at * size, size);
	}
}

/* What counts of it: permits are a tenth of what the largest kind has. */
static void copy_limiter(struct neap_limiter *to, const struct neap_limiter *from)
{
	size_t size = from->kind == NEAP_SEMAPHORE ? sizeof from->as.semaphore
		      : from->kind == NEAP_WINDOW ? sizeof from->as.window : sizeof from->as;
	memcpy(to, from, offsetof(struct neap_limiter, as) + size);
}

static void undo(struct neap_slot *s)
{
	if (s->armed) {
		s->place = s->place_before;
		copy_limiter(&s->limiter, &s->before);
		copy_log(s, &s->limiter, half_of(s, s->place.half), half_of(s, !s->place.half));
		s->holding[s->process] = s->held;
		if (s->armed == NEAP_OF_CONFIG)
			s->config = s->config_before;
		barrier();
		s->armed = 0;
	}
	barrier();
	__atomic_store_n(&s->version, (s->version + 1) & ~INT64_C(1), __ATOMIC_RELEASE);
}

void neap_guard_enter(const struct neap_limiter *l)
{
	struct neap_slot *s = neap_slot_of(l);
	if (neap_mutex_lock(&s->mutex)) {
		undo(s);
		pthread_mutex_consistent(&s->mutex);
	}
	neap_guard_point(s);
}

void neap_guard_leave(const struct neap_limiter *l) { pthread_mutex_unlock(&neap_slot_of(l)->mutex); }

int64_t neap_guard_wait(const struct neap_limiter *l)
{
	neap_guard_enter(l);
	int64_t version = neap_slot_of(l)->version;
	neap_guard_leave(l);
	return version;
}

/* Arm it. The limiter is not written from here on but by who has armed. */
static void arm(struct neap_slot *s, int what)
{
	copy_limiter(&s->before, &s->limiter);
	s->place_before = s->place;
	if (what == NEAP_OF_CONFIG)
		s->config_before = s->config;
	barrier();
	s->armed = what;
	barrier();
}

static void make_odd(struct neap_slot *s)
{
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);   /* it is seen before what follows is */
}

static void disarm(struct neap_slot *s)
{
	barrier();
	s->armed = 0;
	barrier();
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELEASE);
}

/* Begin a change in which permits of 'process' may come and go. */
static void begin(struct neap_limiter *l, int what, uint32_t from, uint32_t count, int32_t process)
{
	struct neap_slot *s = neap_slot_of(l);
	s->from = from;
	s->count = count;
	copy_log(s, l, half_of(s, !s->place.half), half_of(s, s->place.half));
	s->process = process;
	s->held = s->holding[process];
	make_odd(s);
	arm(s, what);
}

void neap_guard_begin(struct neap_limiter *l, int what, uint32_t from, uint32_t count)
{
	begin(l, what, from, count, has_permits(l) ? neap_guard_record(l) : 0);
}

void neap_guard_commit(struct neap_limiter *l)
{
	struct neap_slot *s = neap_slot_of(l);
	s->holding[s->process] = s->held + in_use(l) - in_use(&s->before);
	disarm(s);
}

int64_t neap_guard_reap(struct neap_header *h, int32_t process, const struct neap_process *dead)
{
	int64_t back = 0;
	int64_t count = __atomic_load_n(&h->count, __ATOMIC_ACQUIRE);
	for (int32_t i = 0; i < count; i++) {
		struct neap_slot *s = neap_slot_at(h, i);
		struct neap_limiter *l = &s->limiter;
		if (!has_permits(l))
			continue;
		neap_guard_enter(l);   /* even if it holds nothing: it may, once its change is undone */
		struct neap_process now = neap_guard_process(h, process);
		int64_t held = neap_process_is(&now, dead) ? s->holding[process] : 0;
		if (held) {
			begin(l, NEAP_OF_STATE, 0, 0, process);
			if (l->kind == NEAP_SEMAPHORE)
				l->as.semaphore.in_use -= held;
			else
				neap_adaptive_settle(&l->as.adaptive, held, 0);
			neap_guard_commit(l);
			back += held;
		}
		neap_guard_leave(l);
	}
	neap_guard_forget(h, process, dead);
	return back;
}

int neap_guard_before(const struct neap_limiter *a, const struct neap_limiter *b)
{
	uint64_t left = neap_header_of(a)->id, right = neap_header_of(b)->id;
	return left != right ? left < right : a->shared < b->shared;
}

/* ---- rates ---- */

static const int64_t HELD = INT64_MIN;

/* What 'g' becomes. */
static struct neap_gcra turned(const struct neap_gcra *g, const struct neap_gcra_turn *t)
{
	struct neap_gcra fresh = *g;
	if (t->like) {
		fresh = *t->like;
		fresh.held = 0;
		fresh.tat = neap_gcra_carry(g, &fresh, t->keep, t->now);
		fresh.stands = neap_gcra_clock(&fresh, t->now);
		fresh.held = g->held;
		fresh.robust = 1;
	} else {
		neap_gcra_hold(&fresh, t->tokens, t->until, t->now);
	}
	return fresh;
}

void neap_guard_turn(struct neap_limiter *l, const struct neap_gcra_turn *t,
		     const struct neap_config *config)
{
	struct neap_slot *s = neap_slot_of(l);
	struct neap_gcra *g = &l->as.gcra, fresh;
	int64_t tat, held;
	s->count = 0;
	s->process = 0;
	s->held = s->holding[0];
	make_odd(s);
	do {
		do
			tat = neap_word_free(&g->tat, 1);
		while (!neap_word_swap(&g->tat, &tat, tat | HELD));
		if (!s->armed)
			arm(s, config ? NEAP_OF_CONFIG : NEAP_OF_STATE);
		s->before.as.gcra.tat = tat;
		fresh = turned(&s->before.as.gcra, t);
		g->burst = fresh.burst;
		memcpy(g->speed, fresh.speed, sizeof g->speed);
		memcpy(g->pace, fresh.pace, sizeof g->pace);
		g->held = fresh.held;
		g->stands = fresh.stands;
		g->shift = fresh.shift;
		g->pace_shift = fresh.pace_shift;
		if (config)
			s->config = *config;
		held = tat | HELD;
		/* it fails if the hold was taken away from one that stood still for long */
	} while (!__atomic_compare_exchange_n(&g->tat, &held, fresh.tat, 0, __ATOMIC_ACQ_REL,
					      __ATOMIC_RELAXED));
	disarm(s);
}

static neap_ns take_rate(struct neap_limiter *l, int64_t cost, neap_ns now)
{
	struct neap_gcra *g = &l->as.gcra;
	struct neap_change change = {0};
	for (;;) {
		int64_t version = neap_guard_look(l);
		neap_ns at = neap_gcra_plan(g, cost, now, &change);
		if (neap_guard_moved(l, version))
			continue;
		if (at > now || neap_word_swap(&g->tat, &change.from, change.to))
			return at;
		neap_word_free(&g->tat, 1);
	}
}

/* ---- verbs ---- */

/* From which entry on a change of what came at 'at' may write: that one, or the one before. */
static uint32_t entry_before(const struct neap_window *w, neap_ns at)
{
	uint32_t low = 0, high = w->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (w->log[((uint64_t)w->first + middle) % w->size].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? low - 1 : 0;
}

/* Begin a change of the entries from one of instant 'at' on, and of the one that may follow. */
static void begin_from(struct neap_limiter *l, neap_ns at)
{
	uint32_t from = 0, count = 0;
	if (l->kind == NEAP_WINDOW) {
		const struct neap_window *w = &l->as.window;
		from = at == neap_never ? w->count - (w->count > 0) : entry_before(w, at);
		count = w->count + 1 - from;
		count = count < w->size ? count : w->size;
	} else if (l->kind == NEAP_BREAKER) {
		count = (uint32_t)neap_trip_words(&l->as.breaker.trip);
	}
	neap_guard_begin(l, NEAP_OF_STATE, from, count);
}

neap_ns neap_guarded_when(const struct neap_limiter *l, int64_t cost, neap_ns now)
{
	neap_ns at;
	if (l->kind == NEAP_PAUSE)
		return neap_bare_when(l, cost, now);
	if (l->kind == NEAP_GCRA) {
		int64_t version;
		do {
			version = neap_guard_look(l);
			at = neap_bare_when(l, cost, now);
		} while (neap_guard_moved(l, version));
		return at;
	}
	neap_guard_enter(l);
	at = neap_bare_when(l, cost, now);
	neap_guard_leave(l);
	return at;
}

neap_ns neap_guarded_take(struct neap_limiter *l, int64_t cost, neap_ns now)
{
	if (l->kind == NEAP_PAUSE)
		return neap_bare_take(l, cost, now);
	if (l->kind == NEAP_GCRA)
		return take_rate(l, cost, now);
	neap_guard_enter(l);
	neap_ns at = neap_bare_when(l, cost, now);
	int changes = l->kind != NEAP_BREAKER || l->as.breaker.open;
	if (at <= now && cost && changes) {
		begin_from(l, neap_never);
		neap_bare_take(l, cost, now);
		neap_guard_commit(l);
	}
	neap_guard_leave(l);
	return at;
}

void neap_guarded_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now)
{
	if (!has_permits(l) && l->kind != NEAP_BREAKER)
		return;
	neap_guard_enter(l);
	begin_from(l, neap_never);
	int64_t held = neap_slot_of(l)->held;
	neap_bare_give(l, has_permits(l) && cost > held ? held : cost, outcome, at, now);
	neap_guard_commit(l);
	neap_guard_leave(l);
}

void neap_guarded_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at,
			 neap_ns now)
{
	if (l->kind == NEAP_PAUSE)
		return;
	neap_guard_enter(l);
	if (l->kind == NEAP_GCRA) {
		neap_bare_settle(l, cost, used, at, now);   /* one swap; in here its numbers stay */
	} else {
		begin_from(l, at);
		int64_t held = neap_slot_of(l)->held;
		if (has_permits(l) && cost - used > held)
			used = cost - held;
		neap_bare_settle(l, cost, used, at, now);
		neap_guard_commit(l);
	}
	neap_guard_leave(l);
}

int neap_guarded_hold(struct neap_limiter *l, int64_t tokens, neap_ns until, neap_ns now)
{
	if (l->kind != NEAP_GCRA && l->kind != NEAP_WINDOW)
		return NEAP_ERANGE;
	neap_guard_enter(l);
	if (l->kind == NEAP_GCRA) {
		neap_guard_turn(l, &(struct neap_gcra_turn){NULL, tokens, until, now, 0}, NULL);
	} else {
		begin_from(l, 0);
		neap_window_hold(&l->as.window, tokens, until, now);
		neap_guard_commit(l);
	}
	neap_guard_leave(l);
	return NEAP_OK;
}
