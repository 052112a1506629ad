/* SPDX-License-Identifier: MIT */
/* property_waiting.c - long lines, wake-ups counted, and an allocator that says no.
 *
 * Each instant here can be checked with a finger: the n-th waiter on a rate goes when the n-th
 * token comes, ceil(n * period / amount), whatever happens around him. This program's malloc,
 * calloc and realloc (the linker puts them before the real ones) count, and fail when told to.
 */
#include "neap.h"
#include "trial.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { CROWD = 10000 };

__extension__ typedef __int128 wide;

static const neap_ns SECOND = 1000000000;

/* ---- the allocator ---- */

static int64_t allowed = INT64_MAX, failed, alive;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void __real_free(void *old);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *old);

static int refuses(void)
{
	if (allowed-- > 0)
		return 0;
	failed++;
	return 1;
}

static void *counted(void *fresh)
{
	alive += fresh != NULL;
	return fresh;
}

void *__wrap_malloc(size_t size) { return refuses() ? NULL : counted(__real_malloc(size)); }

void *__wrap_calloc(size_t count, size_t size)
{
	return refuses() ? NULL : counted(__real_calloc(count, size));
}

/* Always to another place, and what was there is unreadable. */
void *__wrap_realloc(void *old, size_t size)
{
	if (refuses())
		return NULL;
	char *fresh = __real_malloc(size);
	if (!old || !fresh)
		return counted(fresh);
	size_t had = malloc_usable_size(old);
	memcpy(fresh, old, had < size ? had : size);
	memset(old, 0xA5, had);
	__real_free(old);
	return fresh;
}

void __wrap_free(void *old)
{
	alive -= old != NULL;
	__real_free(old);
}

/* ---- a crowd before one rate ---- */

struct crowd {
	struct neap_limiter rate, permits;   /* of those there are enough */
	struct neap_term term[2];
	struct neap_all all;
	struct neap_engine *engine;
	int64_t amount, ticket[CROWD];
	neap_ns period_ns;
};

/* When the n-th token comes to a bucket that was empty at 0. */
static neap_ns nth_token(const struct crowd *c, int64_t n)
{
	return (neap_ns)(((wide)n * c->period_ns + c->amount - 1) / c->amount);
}

static void gather(struct dice *d, struct crowd *c, uint32_t places)
{
	c->amount = dice_any_size(d, 1, 5000000);
	c->period_ns = dice_any_size(d, c->amount, 3600 * SECOND);
	c->rate.kind = NEAP_GCRA;
	neap_gcra_init(&c->rate.as.gcra, c->amount, c->period_ns, dice_between(d, 1, 1000));
	neap_gcra_fill(&c->rate.as.gcra, 0, 0);
	c->permits.kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&c->permits.as.semaphore, CROWD, 0);
	c->term[0] = (struct neap_term){&c->rate, 1, 0, 0};
	c->term[1] = (struct neap_term){&c->permits, 1, 0, 0};
	c->all = (struct neap_all){c->term, (int32_t)dice_between(d, 1, 2), 0, NULL};
	c->engine = neap_engine_open(places, 0);
	if (!c->engine)
		trial_fail("no memory");
}

static void join(struct crowd *c, int i, neap_ns deadline, int status)
{
	struct neap_request r = {.all = &c->all, .deadline = deadline, .cost = {1}};
	struct neap_answer a;
	if (neap_engine_acquire(c->engine, &r, 0, &a) || a.status != status)
		trial_fail("waiter %d: answer %d, not %d", i, a.status, status);
	if (a.at != nth_token(c, i + 1) || a.ahead != i || a.bound != 0)
		trial_fail("waiter %d: told %ld, %ld ahead", i, a.at, a.ahead);
	c->ticket[i < CROWD ? i : 0] = status == NEAP_WAITING ? a.ticket : c->ticket[0];
}

static neap_ns some_later(struct dice *d, struct crowd *c, neap_ns now, int jumps)
{
	neap_ns next = neap_engine_next_due(c->engine);
	return jumps ? now + dice_any_size(d, 1, nth_token(c, 300) + 1) : next;
}

/* All who are left, in order, each at the next token. */
static void expect_in_order(struct dice *d, struct crowd *c, int left, int jumps)
{
	struct neap_completion out[16];
	struct neap_engine_stats s;
	neap_ns now = 0;
	int i = 0, n = 0;
	while (left) {
		now = some_later(d, c, now, jumps);
		neap_engine_advance(c->engine, now);
		for (int64_t got; (got = neap_engine_drain(c->engine, out, 16)) > 0;)
			for (int k = 0; k < got; k++, n++, left--) {
				while (!c->ticket[i])
					i++;
				if (out[k].ticket != c->ticket[i++] || out[k].status != NEAP_GRANTED)
					trial_fail("grant %d is not in order", n);
				if (out[k].at != nth_token(c, n + 1) || out[k].at > now)
					trial_fail("grant %d at %ld, not %ld, seen at %ld", n, out[k].at,
						   nth_token(c, n + 1), now);
			}
	}
	neap_engine_stats(c->engine, &s);
	if (s.waiting || s.lines || s.granted != n || neap_engine_check(c->engine))
		trial_fail("%ld wait, %ld lines, %ld granted", s.waiting, s.lines, s.granted);
}

static void served_in_order(struct dice *d)
{
	static struct crowd c;
	for (int jumps = 0; jumps < 2; jumps++) {
		struct neap_engine_stats s;
		gather(d, &c, CROWD);
		for (int i = 0; i < CROWD; i++)
			join(&c, i, neap_never, NEAP_WAITING);
		int64_t before = alive;
		expect_in_order(d, &c, CROWD, jumps);
		neap_engine_stats(c.engine, &s);
		if (s.wakeups != CROWD)
			trial_fail("%ld wake-ups for %d grants", s.wakeups, CROWD);
		if (alive != before)
			trial_fail("waiting allocates");
		neap_engine_close(c.engine);
	}
}

static void every_third_leaves(struct dice *d)
{
	static struct crowd c;
	static int order[CROWD];
	for (int round = 0; round < 2; round++) {
		int leave = 0;
		gather(d, &c, CROWD);
		for (int i = 0; i < CROWD; i++)
			join(&c, i, neap_never, NEAP_WAITING);
		for (int i = 0; i < CROWD; i += 3, leave++) {
			int j = (int)dice_between(d, 0, leave);
			order[leave] = order[j];
			order[j] = i;
		}
		for (int i = 0; i < leave; i++) {
			if (neap_engine_cancel(c.engine, c.ticket[order[i]], 0) != 1 ||
			    neap_engine_cancel(c.engine, c.ticket[order[i]], 0) != 0)
				trial_fail("waiter %d could not leave once", order[i]);
			c.ticket[order[i]] = 0;
		}
		if (neap_engine_check(c.engine))
			trial_fail("not sound");
		struct neap_completion out;
		for (int i = 0; i < leave; i++)
			if (neap_engine_drain(c.engine, &out, 1) != 1 || out.status != NEAP_CANCELLED)
				trial_fail("only %d cancellations", i);
		expect_in_order(d, &c, CROWD - leave, round);
		neap_engine_close(c.engine);
	}
}

static void impossible_deadlines(struct dice *d)
{
	static struct crowd c;
	gather(d, &c, CROWD + 1);
	for (int i = 0; i < CROWD; i++) {
		neap_ns earliest = nth_token(&c, i + 1);
		join(&c, i, earliest - 1, NEAP_TIMEOUT);
		join(&c, i, earliest > 2 ? dice_between(d, 1, earliest - 1) : 1, NEAP_TIMEOUT);
		join(&c, i, earliest, NEAP_WAITING);   /* just in time, and so it turns out */
	}
	expect_in_order(d, &c, CROWD, 0);
	neap_engine_close(c.engine);
}

/* Half of the line have deadlines, and then comes a pause that nobody foresaw. */
static void deadlines_free_the_line(struct dice *d)
{
	static struct crowd c;
	static neap_ns deadline[CROWD];
	gather(d, &c, CROWD);
	struct neap_limiter gate = {.kind = NEAP_PAUSE};
	const struct neap_term terms[] = {{&c.rate, 1, 0, 0}, {&gate, 1, 0, 0}};
	neap_ns opens = nth_token(&c, CROWD);
	c.all = (struct neap_all){terms, 2, 0, NULL};
	neap_pause_init(&gate.as.pause);
	for (int i = 0; i < CROWD; i++) {
		struct neap_request r = {.all = &c.all, .deadline = neap_never, .cost = {1}};
		struct neap_answer a;
		if (dice_between(d, 0, 1))
			r.deadline = nth_token(&c, i + 1) + dice_between(d, 0, opens);
		deadline[i] = r.deadline;
		if (neap_engine_acquire(c.engine, &r, 0, &a) || a.status != NEAP_WAITING)
			trial_fail("waiter %d: %d", i, a.status);
		c.ticket[i] = a.ticket;
	}
	neap_pause_extend(&gate.as.pause, opens);
	neap_engine_touch(c.engine, &gate, 0);
	int left = CROWD;
	struct neap_completion out;
	for (neap_ns now = 0, last = 0; left; now = some_later(d, &c, now, 0)) {
		neap_engine_advance(c.engine, now);
		while (neap_engine_drain(c.engine, &out, 1)) {
			int i = 0;
			while (c.ticket[i] != out.ticket)
				i++;
			if (out.status == NEAP_TIMEOUT ? out.at != deadline[i] : out.at > deadline[i])
				trial_fail("%d at %ld, deadline %ld", out.status, out.at, deadline[i]);
			if (out.status == NEAP_GRANTED && out.at < opens)
				trial_fail("granted during a pause");
			if (out.at < last)
				trial_fail("not in order of time");
			last = out.at;
			left--;
		}
	}
	neap_engine_close(c.engine);
}

/* ---- no memory ---- */

static void opening_without_memory(struct dice *d)
{
	(void)d;
	int64_t before = alive;
	for (int64_t n = 0;; n++) {
		allowed = n, failed = 0;
		struct neap_engine *e = neap_engine_open(100, 0);
		struct neap_wheel *w = neap_wheel_open(100, 0);
		struct neap_queue *q = neap_queue_open(100, NEAP_REJECT, 0);
		allowed = INT64_MAX;
		if ((e && w && q) != !failed)
			trial_fail("opened without memory");
		neap_engine_close(e);
		neap_wheel_close(w);
		neap_queue_close(q);
		if (alive != before)
			trial_fail("%ld blocks stay after failure %ld", alive - before, n);
		if (!failed)
			return;
	}
}

/* Every line needs a record; when there is no room for it, nobody notices but the newcomer. */
static void beginning_lines_without_memory(struct dice *d)
{
	enum { LINES = 200 };
	static struct neap_limiter gate[LINES];
	static struct neap_term term[LINES];
	static struct neap_all all[LINES];
	int64_t refused = 0, before_all = alive;
	struct neap_engine *e = neap_engine_open(LINES, 0);
	for (int i = 0; i < LINES; i++) {
		gate[i].kind = NEAP_PAUSE;
		neap_pause_init(&gate[i].as.pause);
		neap_pause_extend(&gate[i].as.pause, 1000 + i);
		term[i] = (struct neap_term){&gate[i], 1, 0, 0};
		all[i] = (struct neap_all){&term[i], 1, 0, NULL};
	}
	for (int i = 0; i < LINES;) {
		struct neap_request r = {.all = &all[i], .deadline = neap_never, .cost = {1}};
		struct neap_answer a;
		struct neap_engine_stats before, after;
		neap_engine_stats(e, &before);
		allowed = dice_between(d, 0, 2), failed = 0;
		int answer = neap_engine_acquire(e, &r, 0, &a), refuses_now = failed > 0;
		allowed = INT64_MAX;
		neap_engine_stats(e, &after);
		if (neap_engine_check(e))
			trial_fail("not sound after line %d", i);
		if ((answer == NEAP_ENOMEM) != refuses_now)
			trial_fail("line %d: %d, %ld allocations failed", i, answer, failed);
		before.bytes = after.bytes;   /* what was reserved may stay */
		if (answer == NEAP_ENOMEM && memcmp(&before, &after, sizeof after))
			trial_fail("line %d: no memory, and yet something changed", i);
		refused += refuses_now;
		i += !refuses_now;
	}
	allowed = 0;   /* from here on nothing may need memory */
	struct neap_completion out;
	neap_engine_advance(e, 5000);
	for (int i = 0; i < LINES; i++)
		if (neap_engine_drain(e, &out, 1) != 1 || out.at != 1000 + i)
			trial_fail("line %d at %ld", i, out.at);
	allowed = INT64_MAX;
	if (!refused)
		trial_fail("memory was never refused");
	neap_engine_close(e);
	if (alive != before_all)
		trial_fail("%ld blocks stay", alive - before_all);
}

/* There is room for as many posts as lines, and yet one: it stays what it is while records move. */
static void many_lines_before_one(struct dice *d)
{
	enum { LINES = 300 };
	static struct neap_limiter gate;
	static struct neap_term term;
	static struct neap_all all[LINES];
	struct neap_engine *e = neap_engine_open(LINES, 0);
	gate.kind = NEAP_PAUSE;
	neap_pause_init(&gate.as.pause);
	neap_pause_extend(&gate.as.pause, 1000);
	term = (struct neap_term){&gate, 1, 0, 0};
	for (int i = 0; i < LINES; i++) {
		neap_all_init(&all[i], &term, 1);
		struct neap_request r = {.all = &all[i], .deadline = neap_never, .cost = {1}};
		struct neap_answer a;
		if (neap_engine_acquire(e, &r, 0, &a) || a.status != NEAP_WAITING || a.ahead != i)
			trial_fail("line %d: answer %d, %ld ahead", i, a.status, a.ahead);
		if (!dice_between(d, 0, 9) && neap_engine_check(e))
			trial_fail("not sound after line %d", i);
	}
	struct neap_completion out;
	neap_engine_advance(e, 5000);
	for (int i = 0; i < LINES; i++)
		if (neap_engine_drain(e, &out, 1) != 1 || out.at != 1000)
			trial_fail("line %d at %ld", i, out.at);
	neap_engine_close(e);
}

int main(void)
{
	trial_run("many lines before one limiter are in order while their records move",
		  many_lines_before_one);
	trial_run("10,000 on one rate go in order, at the exact instants, with one wake-up each",
		  served_in_order);
	trial_run("when every third leaves the rest move up exactly", every_third_leaves);
	trial_run("a deadline that cannot be met is refused at once, with the earliest that can",
		  impossible_deadlines);
	trial_run("a deadline that comes is kept to the nanosecond", deadlines_free_the_line);
	trial_run("an engine or a queue that finds no memory opens not at all", opening_without_memory);
	trial_run("a line that finds no memory changes nothing", beginning_lines_without_memory);
	return trial_verdict();
}
