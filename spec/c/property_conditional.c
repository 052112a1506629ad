/* SPDX-License-Identifier: MIT */
/* property_conditional.c - terms that depend on pauses, against a list of people.
 *
 * All callers ask the same: calls at once; slots that are needed while a pause is on; and weight
 * that may be overdrawn, and counts many times then. So they are one line, and the model is short:
 * the first may go when everything it needs at that instant is there, and nobody passes it. The
 * engine must let the same ones go at the same instants, say under which conditions, and give back
 * what it took then, whatever the pauses are by now.
 *
 * And what an answer promises is exact: not before that instant, and at it.
 */
#include "neap.h"
#include "trial.h"

#include <string.h>

enum { PEOPLE = 64 };
enum { CALLS, SLOTS, WEIGHT, LIMITERS };

struct person {
	int64_t ticket, weight;
	neap_ns deadline;
};

struct held {
	struct neap_request request;
	neap_ns at;
	int64_t slots, weight;   /* what the model charged */
};

struct both {
	struct neap_limiter limiter[LIMITERS], slots, weight, window;
	struct neap_pause recent;
	struct neap_term term[3];
	struct neap_all all;
	struct neap_engine *engine;
	int64_t penalty;

	int64_t used[LIMITERS], most[LIMITERS];
	neap_ns ends[2];
	struct person person[PEOPLE];
	struct neap_completion ended[PEOPLE];
	struct held held[4 * PEOPLE];
	int people, ends_count, holds;
	neap_ns now;
};

/* ---- the model ---- */

static int on(const struct both *b, neap_ns at) { return at < b->ends[0] || at < b->ends[1]; }

static int may_go(const struct both *b, neap_ns at)
{
	return b->used[CALLS] < b->most[CALLS] && (!on(b, at) || b->used[SLOTS] < b->most[SLOTS]) &&
	       b->used[WEIGHT] <= b->most[WEIGHT];
}

static void charge(struct both *b, int64_t weight, neap_ns at)
{
	struct held *h = &b->held[b->holds++];
	h->request = (struct neap_request){.all = &b->all, .cost = {1, weight}};
	h->at = at;
	h->slots = on(b, at);
	h->weight = weight * (on(b, at) ? b->penalty : 1);
	h->request.on = on(b, at) ? 6 : 0;
	b->used[CALLS]++;
	b->used[SLOTS] += h->slots;
	b->used[WEIGHT] += h->weight;
}

static void end(struct both *b, int i, int status, neap_ns at)
{
	uint64_t under = status == NEAP_GRANTED && on(b, at) ? 6 : 0;
	b->ended[b->ends_count++] =
		(struct neap_completion){b->person[i].ticket, at, status, -1, under};
	memmove(&b->person[i], &b->person[i + 1], (size_t)(--b->people - i) * sizeof b->person[0]);
}

static void let_go(struct both *b, neap_ns at)
{
	while (b->people && may_go(b, at)) {
		charge(b, b->person[0].weight, at);
		end(b, 0, NEAP_GRANTED, at);
	}
}

/* The next instant at which something happens by itself. */
static neap_ns next_event(const struct both *b, neap_ns after)
{
	neap_ns next = neap_never;
	for (int i = 0; i < 2; i++)
		if (b->ends[i] > after && b->ends[i] < next)
			next = b->ends[i];
	for (int i = 0; i < b->people; i++)
		if (b->person[i].deadline < next)
			next = b->person[i].deadline;
	return next;
}

static void pass(struct both *b, neap_ns to)
{
	neap_ns at = b->now;
	for (neap_ns next; (next = next_event(b, at)) <= to;) {
		at = next;
		let_go(b, at);
		for (int i = 0; i < b->people;)
			if (b->person[i].deadline <= at) {
				end(b, i, NEAP_TIMEOUT, at);
				let_go(b, at);
			} else {
				i++;
			}
	}
	b->now = to;
}

/* ---- both ---- */

static void conditional(struct both *b, struct neap_limiter *l, int limiter, int64_t when_on,
			int64_t off)
{
	struct neap_conditional c = {&b->limiter[limiter], {&b->recent, &b->window.as.pause}, when_on,
				     off};
	if (neap_conditional_init(l, &c))
		trial_fail("a conditional is refused");
}

static void open_both(struct dice *d, struct both *b)
{
	memset(b, 0, sizeof *b);
	b->penalty = dice_between(d, 1, 5);
	for (int i = CALLS; i < LIMITERS; i++) {
		b->most[i] = dice_between(d, 1, i == SLOTS ? 3 : 8);
		b->limiter[i].kind = NEAP_SEMAPHORE;
		neap_semaphore_init(&b->limiter[i].as.semaphore, b->most[i], i == WEIGHT);
	}
	neap_pause_init(&b->recent);
	b->window.kind = NEAP_PAUSE;
	neap_pause_init(&b->window.as.pause);
	conditional(b, &b->slots, SLOTS, 1, 0);
	conditional(b, &b->weight, WEIGHT, b->penalty, 1);
	b->term[0] = (struct neap_term){&b->limiter[CALLS], 1, 0, 0};
	b->term[1] = (struct neap_term){&b->slots, 1, 0, 0};
	b->term[2] = (struct neap_term){&b->weight, 1, 1, 0};
	if (neap_all_init(&b->all, b->term, 3))
		trial_fail("an all is refused");
	b->engine = neap_engine_open(PEOPLE, 0);
	if (!b->engine)
		trial_fail("no memory");
}

static void expect_same(struct both *b)
{
	struct neap_completion got[PEOPLE];
	int64_t count = neap_engine_drain(b->engine, got, PEOPLE);
	if (count != b->ends_count)
		trial_fail("%ld ended, not %d, at %ld", count, b->ends_count, b->now);
	for (int i = 0; i < count; i++) {
		const struct neap_completion *want = &b->ended[i];
		if (got[i].ticket != want->ticket || got[i].at != want->at ||
		    got[i].status != want->status || got[i].on != want->on)
			trial_fail("%ld at %ld as %d under %lu, not %ld at %ld as %d under %lu",
				   got[i].ticket, got[i].at, got[i].status, got[i].on, want->ticket,
				   want->at, want->status, want->on);
	}
	b->ends_count = 0;
	for (int i = CALLS; i < LIMITERS; i++)
		if (b->limiter[i].as.semaphore.in_use != b->used[i])
			trial_fail("%ld of %d in use, not %ld", b->limiter[i].as.semaphore.in_use, i,
				   b->used[i]);
	if (neap_engine_check(b->engine))
		trial_fail("the engine is not sound");
}

static void come(struct dice *d, struct both *b)
{
	int64_t weight = dice_between(d, 1, 6);
	struct neap_request r = {.all = &b->all, .deadline = neap_never, .cost = {1, weight}};
	struct neap_answer a;
	if (!dice_between(d, 0, 3))
		r.deadline = b->now + dice_between(d, 1, 60);
	int goes = b->people == 0 && may_go(b, b->now);
	if (b->holds == 4 * PEOPLE || b->people == PEOPLE)
		return;
	if (neap_engine_acquire(b->engine, &r, b->now, &a))
		trial_fail("no memory");
	if ((a.status == NEAP_GRANTED) != goes)
		trial_fail("answers %d at %ld, but goes: %d", a.status, b->now, goes);
	if (goes) {
		charge(b, weight, b->now);
		if (a.on != b->held[b->holds - 1].request.on)
			trial_fail("granted under %lu, not %lu", a.on, b->held[b->holds - 1].request.on);
	} else if (a.status == NEAP_WAITING) {
		b->person[b->people++] = (struct person){a.ticket, weight, r.deadline};
	} else {
		trial_fail("answers %d, %ld at the earliest, by %ld", a.status, a.at, r.deadline);
	}
}

static void give(struct dice *d, struct both *b)
{
	if (!b->holds)
		return;
	struct held *of = &b->held[dice_between(d, 0, b->holds - 1)], h = *of;
	if (dice_between(d, 0, 3)) {
		*of = b->held[--b->holds];
		b->used[CALLS]--;
		b->used[SLOTS] -= h.slots;
		b->used[WEIGHT] -= h.weight;
		neap_engine_give(b->engine, &h.request, NEAP_SUCCESS, h.at, b->now);
	} else {
		int64_t used[NEAP_COSTS] = {1, dice_between(d, 0, 6)};
		int64_t becomes = used[1] * (h.request.on ? b->penalty : 1);
		of->weight = becomes;
		of->request.cost[1] = used[1];
		b->used[WEIGHT] += becomes - h.weight;
		neap_engine_settle(b->engine, &h.request, used, h.at, b->now);
	}
	let_go(b, b->now);
}

static void change_pause(struct dice *d, struct both *b)
{
	int which = (int)dice_between(d, 0, 1);
	struct neap_pause *p = which ? &b->window.as.pause : &b->recent;
	if (dice_between(d, 0, 3)) {
		neap_ns until = b->now + dice_between(d, 0, 80);
		neap_pause_extend(p, until);
		b->ends[which] = until > b->ends[which] ? until : b->ends[which];
		return;
	}
	neap_pause_clear(&b->window.as.pause);
	b->ends[1] = 0;
	neap_engine_touch(b->engine, &b->window, b->now);
	let_go(b, b->now);
}

static void cancel(struct dice *d, struct both *b)
{
	if (!b->people)
		return;
	int i = (int)dice_between(d, 0, b->people - 1);
	if (!neap_engine_cancel(b->engine, b->person[i].ticket, b->now))
		trial_fail("a waiter cannot be cancelled");
	end(b, i, NEAP_CANCELLED, b->now);
	let_go(b, b->now);
}

static void one_line(struct dice *d)
{
	static struct both b;
	for (int64_t ops = trial_ops(50000); ops > 0;) {
		open_both(d, &b);
		for (int i = 0; i < 300; i++, ops--) {
			neap_ns to = b.now + (dice_between(d, 0, 2) ? dice_between(d, 0, 3)
								    : dice_between(d, 0, 90));
			pass(&b, to);
			neap_engine_advance(b.engine, to);
			switch (dice_between(d, 0, 7)) {
			case 0: change_pause(d, &b); break;
			case 1: cancel(d, &b); break;
			case 2: case 3: case 4: give(d, &b); break;
			default: come(d, &b);
			}
			expect_same(&b);
		}
		neap_engine_close(b.engine);
	}
}

/* ---- exact instants ---- */

static void any_limiter(struct dice *d, struct neap_limiter *l, struct neap_stamp *log)
{
	switch (dice_between(d, 0, 3)) {
	case 0:
		l->kind = NEAP_SEMAPHORE;
		neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 4), 0);
		neap_semaphore_take(&l->as.semaphore, dice_between(d, 0, 4), 0);
		break;
	case 1:
		l->kind = NEAP_WINDOW;
		neap_window_init(&l->as.window, dice_between(d, 1, 6), dice_between(d, 1, 60), log, 8);
		neap_window_take(&l->as.window, dice_between(d, 0, 6), 0);
		break;
	default:
		l->kind = NEAP_GCRA;
		neap_gcra_init(&l->as.gcra, dice_between(d, 1, 3), dice_between(d, 1, 40),
			       dice_between(d, 1, 8));
		neap_gcra_take(&l->as.gcra, dice_between(d, 0, 8), 0);
	}
}

/* Nothing else happens: the answer is the first instant at which the same call goes. */
static void exact(struct dice *d)
{
	for (int64_t ops = trial_ops(2000); ops > 0; ops--) {
		struct neap_limiter l[2] = {{0}}, c[2], window = {.kind = NEAP_PAUSE};
		struct neap_stamp log[2][8];
		struct neap_pause pause;
		struct neap_term term[3];
		struct neap_all all;
		struct neap_answer first, a;
		neap_pause_init(&pause);
		neap_pause_init(&window.as.pause);
		neap_pause_extend(&pause, dice_between(d, 0, 120));
		neap_pause_extend(&window.as.pause, dice_between(d, 0, 60));
		for (int i = 0; i < 2; i++) {
			any_limiter(d, &l[i], log[i]);
			int64_t off = dice_between(d, 0, 4);
			neap_conditional_init(&c[i], &(struct neap_conditional){
				&l[i], {&pause, dice_between(d, 0, 1) ? &window.as.pause : NULL},
				off + dice_between(d, 0, 4), off});
			term[i] = (struct neap_term){&c[i], dice_between(d, 1, 2), i, 0};
		}
		term[2] = (struct neap_term){&window, 1, 0, 0};
		if (neap_all_init(&all, term, (int32_t)dice_between(d, 1, 3)))
			trial_fail("an all is refused");
		struct neap_request r = {.all = &all, .deadline = neap_never,
					 .cost = {1, dice_between(d, 0, 2)}};
		struct neap_engine *e = neap_engine_open(4, 0);
		neap_engine_peek(e, &r, 0, &first);
		neap_ns promised = first.status == NEAP_GRANTED ? 0
				   : first.status == NEAP_NEVER ? neap_never : first.at;
		neap_ns goes = neap_never;
		for (neap_ns at = 0; at < 700 && goes == neap_never; at++) {
			neap_engine_peek(e, &r, at, &a);
			if (a.status == NEAP_GRANTED)
				goes = at;
		}
		/* a permit may come back before a pause ends, so nothing is promised; but none does */
		if (goes != promised && promised != neap_on_give)
			trial_fail("promised at %ld, goes at %ld", promised, goes);
		if (goes == neap_never) {
			neap_engine_close(e);
			continue;
		}
		if (first.status != NEAP_GRANTED) {   /* and who waits is granted then */
			struct neap_engine *w = neap_engine_open(4, 0);
			struct neap_completion done;
			if (neap_engine_acquire(w, &r, 0, &a) || a.status != NEAP_WAITING)
				trial_fail("answers %d", a.status);
			neap_engine_advance(w, 1000);
			if (neap_engine_drain(w, &done, 1) != 1 || done.at != goes ||
			    done.status != NEAP_GRANTED)
				trial_fail("granted at %ld, could go at %ld", done.at, goes);
			neap_engine_close(w);
		}
		neap_engine_close(e);
	}
}

static void refuses(struct dice *d)
{
	(void)d;
	struct neap_limiter l = {.kind = NEAP_SEMAPHORE}, c, other, keyed = {.kind = NEAP_KEYED};
	struct neap_pause p;
	struct neap_all all;
	neap_semaphore_init(&l.as.semaphore, 1, 0);
	neap_pause_init(&p);
	struct neap_conditional good = {&l, {&p, NULL}, 1, 0};
	struct neap_conditional bad[] = {
		{NULL, {&p, NULL}, 1, 0}, {&keyed, {&p, NULL}, 1, 0}, {&l, {NULL, &p}, 1, 0},
		{&l, {&p, NULL}, 1, -1}, {&l, {&p, NULL}, 1, 2},
		{&l, {&p, NULL}, INT64_C(1) << 31, 0},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (neap_conditional_init(&c, &bad[i]) != NEAP_ERANGE)
			trial_fail("row %zu is accepted", i);
	if (neap_conditional_init(&c, &good) || neap_conditional_init(&other, &good))
		trial_fail("a good one is refused");
	struct neap_conditional of_one = {&c, {&p, NULL}, 1, 0};
	if (neap_conditional_init(&other, &of_one) != NEAP_ERANGE)
		trial_fail("one of a conditional is accepted");
	struct neap_term twice[] = {{&c, 1, 0, 0}, {&l, 1, 0, 0}}, two[] = {{&c, 1, 0, 0}, {&other, 1, 0, 0}};
	if (neap_all_init(&all, twice, 2) != NEAP_ERANGE || neap_all_init(&all, two, 2) != NEAP_ERANGE)
		trial_fail("a limiter that has another term is accepted");
	if (neap_limiter_available(&c, 0) != INT64_MAX || neap_limiter_capacity(&c) != INT64_MAX)
		trial_fail("what asks nothing has a bound");
	neap_pause_extend(&p, 10);
	if (neap_limiter_available(&c, 9) != 1 || neap_limiter_available(&c, 10) != INT64_MAX)
		trial_fail("what is available does not follow the pause");
}

int main(void)
{
	trial_run("a line feels pauses as a list of people would", one_line);
	trial_run("an answer is the first instant, whichever condition holds then", exact);
	trial_run("what cannot be conditional is refused", refuses);
	return trial_verdict();
}
