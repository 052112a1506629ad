/* SPDX-License-Identifier: MIT */
/* property_engine.c - engine against a list of people, on random traffic.
 *
 * Two equal worlds of limiters, one for the engine, one for the model (model/queue.h). Whatever
 * comes, both end the same tickets at the same instants in the same order for the same reason,
 * and leave the same words behind. After every step engine_check has looked at all links, nobody
 * who could go is left waiting, and next_due is neither late nor past.
 *
 * What an answer promises is tried out: a copy of the model lives on without any further traffic,
 * and the newcomer is never granted before the promised instant.
 */
#include "queue.h"
#include "trial.h"

#include <string.h>

enum { HELD = 64 };

struct grant {
	int all;
	int64_t cost[NEAP_COSTS];
	neap_ns at;
};

struct pair {
	struct neap_engine *engine;
	struct world world;
	struct queue queue;
	struct grant held[HELD];
	int holds;
	struct queue_person asked[QUEUE_PEOPLE];   /* what open tickets asked for */
	int asks;
	uint32_t waiters_max;
	int undrained;
	neap_ns now;
};

/* ---- worlds ---- */

static void any_limiter(struct dice *d, struct world *w, int i)
{
	struct neap_limiter *l = &w->limiter[i];
	struct neap_strategy strategy;
	l->kind = (int32_t)(dice_between(d, 0, 2) ? dice_between(d, 1, 2) : dice_between(d, 1, 5));
	if (l->kind == NEAP_BREAKER)   /* has waiting tests of its own */
		l->kind = NEAP_ADAPTIVE;
	switch (l->kind) {
	case NEAP_GCRA:
		neap_gcra_init(&l->as.gcra, dice_between(d, 1, 3), dice_any_size(d, 1, 5000),
			       dice_between(d, 1, 4));
		break;
	case NEAP_SEMAPHORE:
		neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 4), dice_between(d, 0, 4) == 0);
		break;
	case NEAP_WINDOW:
		neap_window_init(&l->as.window, dice_between(d, 1, 4), dice_any_size(d, 1, 3000), w->log[i],
				 (uint32_t)dice_between(d, 1, QUEUE_LOG));
		break;
	case NEAP_PAUSE:
		neap_pause_init(&l->as.pause);
		break;
	case NEAP_ADAPTIVE:
		neap_strategy_init(&strategy, (int)dice_between(d, NEAP_AIMD, NEAP_GRADIENT));
		strategy.increase = dice_between(d, 1, 3);
		strategy.options = (uint32_t)dice_between(d, 0, NEAP_ONE_CUT | NEAP_GROW_WHEN_USED);
		neap_adaptive_init(&l->as.adaptive, &strategy, 1, dice_between(d, 1, 12),
				   dice_between(d, 1, 4));
	}
}

static void any_world(struct dice *d, struct world *w)
{
	memset(w, 0, sizeof *w);
	for (int i = 0; i < QUEUE_LIMITERS; i++)
		any_limiter(d, w, i);
	for (int a = 0; a < QUEUE_ALLS; a++) {
		int first = (int)dice_between(d, 0, QUEUE_LIMITERS - 1), count = 0;
		int limiters = (int)dice_between(d, 1, 3);
		for (int i = 0; i < limiters && count < QUEUE_TERMS; i++) {
			struct neap_limiter *l = &w->limiter[(first + i) % QUEUE_LIMITERS];
			int32_t cost = (int32_t)dice_between(d, 0, QUEUE_COSTS - 1);
			w->term[a][count++] = (struct neap_term){l, 1, cost, 0};
			if (count < QUEUE_TERMS && !dice_between(d, 0, 5))
				w->term[a][count++] = (struct neap_term){l, 2, 0, 0};
		}
		w->all[a] = (struct neap_all){w->term[a], count, 0, NULL};
	}
}

/* One where heads are overtaken at each of their limiters in turn: some ask several that are slow,
 * many one of these alone. */
static void busy_world(struct dice *d, struct world *w)
{
	memset(w, 0, sizeof *w);
	for (int i = 0; i < QUEUE_LIMITERS; i++) {
		struct neap_limiter *l = &w->limiter[i];
		l->kind = dice_between(d, 0, 2) ? NEAP_GCRA : NEAP_SEMAPHORE;
		if (l->kind == NEAP_GCRA)
			neap_gcra_init(&l->as.gcra, 1, dice_any_size(d, 20, 500), dice_between(d, 1, 3));
		else
			neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 3), 0);
	}
	for (int a = 0; a < QUEUE_ALLS; a++) {
		for (int i = 0; i < QUEUE_COSTS; i++)
			w->term[a][i] = (struct neap_term){&w->limiter[(a + i) % 4], 1, i, 0};
		w->all[a] = (struct neap_all){w->term[a], QUEUE_COSTS, 0, NULL};
	}
}

static void open_both(struct dice *d, struct pair *p, void (*make)(struct dice *, struct world *))
{
	memset(p, 0, sizeof *p);
	make(d, &p->world);
	world_copy(&p->queue.world, &p->world);
	p->waiters_max = (uint32_t)dice_between(d, 1, 30);
	p->now = p->queue.at = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, INT64_C(1) << 50);
	p->engine = neap_engine_open(p->waiters_max, p->now);
	if (!p->engine)
		trial_fail("no memory");
}

/* ---- what must hold after every step ---- */

static void remember(struct pair *p, int all, const int64_t *cost, neap_ns at)
{
	if (p->holds == HELD)
		return;
	struct grant *g = &p->held[p->holds++];
	*g = (struct grant){.all = all, .at = at};
	memcpy(g->cost, cost, sizeof g->cost);
}

static void expect_completion(struct pair *p, const struct neap_completion *got, int i)
{
	const struct neap_completion *want = &p->queue.ended[i];
	if (got->ticket != want->ticket || got->at != want->at || got->status != want->status ||
	    got->bound != want->bound)
		trial_fail("%ld ends at %ld as %d by %d, not %ld at %ld as %d by %d", got->ticket,
			   got->at, got->status, got->bound, want->ticket, want->at, want->status,
			   want->bound);
	for (int a = 0; a < p->asks; a++)
		if (p->asked[a].ticket == got->ticket) {
			if (got->status == NEAP_GRANTED)
				remember(p, p->asked[a].all, p->asked[a].cost, got->at);
			p->asked[a] = p->asked[--p->asks];
			return;
		}
	trial_fail("ticket %ld ended twice", got->ticket);
}

static void drain(struct dice *d, struct pair *p)
{
	struct neap_completion out[4];
	int64_t max = dice_between(d, 1, 4), got = neap_engine_drain(p->engine, out, max);
	if (got != (p->queue.ends < max ? p->queue.ends : max))
		trial_fail("%ld drained of %d", got, p->queue.ends);
	for (int i = 0; i < got; i++)
		expect_completion(p, &out[i], i);
	p->queue.ends -= (int)got;
	memmove(p->queue.ended, p->queue.ended + got, (size_t)p->queue.ends * sizeof *out);
}

static void expect_same(struct pair *p)
{
	struct neap_engine_stats s;
	int waiting = 0;
	for (int i = 0; i < p->queue.people; i++)
		waiting += p->queue.person[i].all >= 0;
	neap_engine_stats(p->engine, &s);
	if (neap_engine_check(p->engine))
		trial_fail("the engine is not sound");
	if (s.waiting != waiting || s.sleeping != p->queue.people - waiting ||
	    s.completed != p->queue.ends)
		trial_fail("%ld wait, %ld sleep, %ld ended; not %d, %d, %d", s.waiting, s.sleeping,
			   s.completed, waiting, p->queue.people - waiting, p->queue.ends);
	if (s.wakeups != p->queue.wakeups)
		trial_fail("%ld wake-ups, not %ld", s.wakeups, p->queue.wakeups);
	if (!world_same(&p->world, &p->queue.world))
		trial_fail("the words differ");
	if (queue_is_stuck(&p->queue))
		trial_fail("somebody could go and is left waiting");
	neap_ns next = neap_engine_next_due(p->engine), want = queue_next(&p->queue);
	int over = want <= p->queue.at;   /* a sleep until an instant that is past */
	if (next > want || (next <= p->queue.at && !over))
		trial_fail("next is %ld, not %ld, at %ld", next, want, p->queue.at);
}

/* ---- traffic ---- */

/* Without more traffic the newcomer is not granted before it was told. */
static void expect_kept(const struct pair *p, const struct neap_answer *a, int all,
			const int64_t *cost)
{
	static struct queue q;
	q = p->queue;
	world_copy(&q.world, &p->queue.world);
	for (int i = 0; i < q.people; i++)
		if (q.person[i].deadline < neap_on_give && q.person[i].all >= 0)
			return;   /* who gives up may let others go earlier */
	if (q.people == QUEUE_PEOPLE)
		return;
	q.ends = 0;
	queue_join(&q, all, cost, neap_never, INT64_C(1) << 53);
	for (int i = 0; i < 500 && queue_next(&q) < neap_horizon; i++) {
		queue_advance(&q, queue_next(&q));
		for (int n = 0; n < q.ends; n++)
			if (q.ended[n].ticket == INT64_C(1) << 53) {
				if (q.ended[n].at < a->at)
					trial_fail("granted at %ld, promised not before %ld", q.ended[n].at,
						   a->at);
				return;
			} else if (q.ended[n].status == NEAP_NEVER) {
				return;   /* and so does one for whom a limit is too low by now */
			}
		q.ends = 0;
	}
}

static void any_request(struct dice *d, struct pair *p, struct neap_request *r, int *all)
{
	*all = (int)dice_between(d, 0, QUEUE_ALLS - 1);
	memset(r, 0, sizeof *r);
	r->all = &p->world.all[*all];
	for (int i = 0; i < QUEUE_COSTS; i++)
		r->cost[i] = dice_between(d, 0, 3) ? dice_between(d, 0, 1) : dice_between(d, 0, 3);
	r->deadline = dice_between(d, 0, 2) ? neap_never : p->now + dice_any_size(d, 1, 8000) - 2;
}

static void expect_answer(struct pair *p, const struct neap_answer *a, int all, const int64_t *cost)
{
	int32_t term;
	neap_ns want = queue_decide(&p->queue, all, cost, UINT64_MAX, &term);
	int granted = a->status == NEAP_GRANTED, never = a->status == NEAP_NEVER;
	if (granted != (want <= p->queue.at) || never != (want == neap_never))
		trial_fail("answer %d, the model says %ld at %ld", a->status, want, p->queue.at);
	if (never && a->bound != term)
		trial_fail("never because of %d, not %d", a->bound, term);
	if (!granted && !never) {
		if (a->at <= p->queue.at || a->bound < 0 || a->bound >= p->world.all[all].count)
			trial_fail("refused until %ld by %d, at %ld", a->at, a->bound, p->queue.at);
		if (a->ahead != queue_ahead(&p->queue, all, cost))
			trial_fail("%ld ahead, not %d", a->ahead, queue_ahead(&p->queue, all, cost));
		expect_kept(p, a, all, cost);
	}
}

static void ask(struct dice *d, struct pair *p, const struct neap_request *r, int all)
{
	struct neap_answer a, peeked;
	int waits = (int)dice_between(d, 0, 3);
	queue_advance(&p->queue, p->now);
	neap_engine_peek(p->engine, r, p->now, &peeked);
	expect_answer(p, &peeked, all, r->cost);
	if (!waits)
		neap_engine_try(p->engine, r, p->now, &a);
	else if (neap_engine_acquire(p->engine, r, p->now, &a))
		trial_fail("no memory");
	if (a.at != peeked.at || a.bound != peeked.bound || a.ahead != peeked.ahead)
		trial_fail("peek says %ld, acquire %ld", peeked.at, a.at);
	if (a.status != peeked.status && peeked.status != NEAP_REFUSED)
		trial_fail("peek answers %d, acquire %d", peeked.status, a.status);
	int open = p->queue.people + p->queue.ends;
	switch (a.status) {
	case NEAP_GRANTED:
		neap_all_take(&p->queue.world.all[all], r->cost, p->queue.at, NULL);
		remember(p, all, r->cost, p->queue.at);
		break;
	case NEAP_TIMEOUT:
		if (r->deadline > p->queue.at && a.at <= r->deadline)
			trial_fail("deadline %ld refused, %ld is early enough", r->deadline, a.at);
		break;
	case NEAP_QUEUE_FULL:
		if (open < (int)p->waiters_max)
			trial_fail("full with %d of %u", open, p->waiters_max);
		break;
	case NEAP_WAITING:
		if (open >= (int)p->waiters_max || r->deadline <= p->queue.at ||
		    (a.at > r->deadline && a.at < neap_on_give))
			trial_fail("waits, %d of %u do, deadline %ld, %ld at best", open, p->waiters_max,
				   r->deadline, a.at);
		queue_join(&p->queue, all, r->cost, r->deadline, a.ticket);
		p->asked[p->asks++] = p->queue.person[p->queue.people - 1];
		break;
	case NEAP_REFUSED:
		if (waits)
			trial_fail("acquire refuses");
	}
}

static void ask_anything(struct dice *d, struct pair *p)
{
	struct neap_request r;
	int all;
	any_request(d, p, &r, &all);
	ask(d, p, &r, all);
}

static void ask_for_some(struct dice *d, struct pair *p)
{
	int all = (int)dice_between(d, 0, QUEUE_ALLS - 1);
	int one = dice_between(d, 0, 3) ? (int)dice_between(d, 0, QUEUE_COSTS - 1) : -1;
	struct neap_request r = {.all = &p->world.all[all], .deadline = neap_never};
	for (int i = 0; i < QUEUE_COSTS; i++)
		r.cost[i] = one < 0 ? dice_between(d, 0, 5) > 0 : i == one;
	if (!dice_between(d, 0, 9))
		r.deadline = p->now + dice_any_size(d, 1, 8000);
	ask(d, p, &r, all);
}

static void go_to_sleep(struct dice *d, struct pair *p)
{
	neap_ns until = p->now + dice_any_size(d, 1, 4000) - 3;
	int open = p->queue.people + p->queue.ends;
	int64_t ticket = neap_engine_sleep(p->engine, until, p->now);
	queue_advance(&p->queue, p->now);
	open = p->queue.people + p->queue.ends;
	if (!ticket != (open >= (int)p->waiters_max))
		trial_fail("ticket %ld with %d of %u", ticket, open, p->waiters_max);
	if (!ticket)
		return;
	queue_sleep(&p->queue, until, ticket);
	p->asked[p->asks++] = p->queue.person[p->queue.people - 1];
}

static void cancel(struct dice *d, struct pair *p)
{
	int64_t ticket = dice_any_size(d, 1, INT64_C(1) << 53);
	if (p->asks)
		ticket = p->asked[dice_between(d, 0, p->asks - 1)].ticket +
			 (dice_between(d, 0, 9) ? 0 : 1 << 24);
	int got = neap_engine_cancel(p->engine, ticket, p->now);
	queue_advance(&p->queue, p->now);
	if (got != queue_cancel(&p->queue, ticket))
		trial_fail("cancelling %ld answers %d", ticket, got);
}

static void come_back(struct dice *d, struct pair *p)
{
	if (!p->holds)
		return;
	struct grant *held = &p->held[dice_between(d, 0, p->holds - 1)], g = *held;
	const struct neap_all *same = &p->queue.world.all[g.all];
	struct neap_request r = {.all = &p->world.all[g.all]};
	memcpy(r.cost, g.cost, sizeof r.cost);
	*held = p->held[--p->holds];
	queue_advance(&p->queue, p->now);
	int gives = dice_between(d, 0, 3) != 0, outcome = (int)dice_between(d, 0, 2);
	if (gives) {
		neap_engine_give(p->engine, &r, outcome, g.at, p->now);
		neap_all_give(same, g.cost, outcome, g.at, p->queue.at);
	} else {
		int64_t used[NEAP_COSTS];
		for (int i = 0; i < NEAP_COSTS; i++)
			used[i] = g.cost[i] ? dice_between(d, 0, 2) : 0;
		neap_engine_settle(p->engine, &r, used, g.at, p->now);
		neap_all_settle(same, g.cost, used, g.at, p->queue.at);
		remember(p, g.all, used, g.at);
	}
	queue_ask_all_again(&p->queue, g.all, gives);   /* a give frees permits, and no more */
}

static void change_limiter(struct neap_limiter *l, int64_t by, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: neap_gcra_fill(&l->as.gcra, by, now); break;
	case NEAP_SEMAPHORE: l->as.semaphore.limit = by + 1; break;
	case NEAP_ADAPTIVE: neap_adaptive_bounds(&l->as.adaptive, by, 4 * by, now); break;
	case NEAP_PAUSE:
		by ? (void)neap_pause_extend(&l->as.pause, now + by * 500) : neap_pause_clear(&l->as.pause);
	}
}

static void touch(struct dice *d, struct pair *p)
{
	int l = (int)dice_between(d, 0, QUEUE_LIMITERS - 1);
	int64_t by = dice_between(d, 0, 3);
	neap_engine_advance(p->engine, p->now);
	queue_advance(&p->queue, p->now);
	change_limiter(&p->world.limiter[l], by, p->queue.at);
	change_limiter(&p->queue.world.limiter[l], by, p->queue.at);
	neap_engine_touch(p->engine, &p->world.limiter[l], p->now);
	queue_ask_again(&p->queue, l);
}

static void move_clock(struct dice *d, struct pair *p)
{
	neap_ns next = queue_next(&p->queue);
	switch (dice_between(d, 0, 7)) {
	case 0: case 1: p->now += dice_between(d, 0, 20); break;
	case 2: p->now += dice_any_size(d, 1, 20000); break;
	case 3: case 4: p->now = next < neap_horizon ? next : p->now; break;
	case 5: p->now = next < neap_horizon && next > 0 ? next - 1 : p->now; break;
	case 6: p->now -= dice_between(d, 0, 4) ? 0 : dice_between(d, 0, p->now < 9 ? p->now : 9); break;
	}
}

static void step(struct dice *d, struct pair *p)
{
	move_clock(d, p);
	switch (dice_between(d, 0, 11)) {
	case 0: go_to_sleep(d, p); break;
	case 1: cancel(d, p); break;
	case 2: touch(d, p); break;
	case 3: case 4: case 5: come_back(d, p); break;
	case 6:
		queue_advance(&p->queue, p->now);
		if (neap_engine_advance(p->engine, p->now) != p->queue.ends)
			trial_fail("advance counts otherwise than %d", p->queue.ends);
		break;
	default: ask_anything(d, p);
	}
	if (dice_between(d, 0, 2))
		drain(d, p);
}

static void same_as_a_list(struct dice *d)
{
	static struct pair p;
	for (int64_t ops = trial_ops(50000); ops > 0;) {
		open_both(d, &p, any_world);
		for (int i = 0; i < 200; i++, ops--) {
			step(d, &p);
			expect_same(&p);
		}
		neap_engine_close(p.engine);
	}
}

/* ---- overload ---- */

/* Time goes slowly, permits come back at once, and for a limiter alone there is always somebody. */
static void busy_step(struct dice *d, struct pair *p)
{
	neap_ns next = queue_next(&p->queue);
	p->now = dice_between(d, 0, 3) ? p->now + dice_between(d, 0, 9)
				       : next < neap_horizon ? next : p->now;
	switch (dice_between(d, 0, 19)) {
	case 0: cancel(d, p); break;
	case 1: touch(d, p); break;
	case 2: case 3: case 4: case 5: case 6: come_back(d, p); break;
	default: ask_for_some(d, p);
	}
	drain(d, p);
}

static void nobody_starves(struct dice *d)
{
	static struct pair p;
	int64_t urgent = 0, worlds = 0;
	for (int64_t ops = trial_ops(50000); ops > 0; worlds++) {
		open_both(d, &p, busy_world);
		for (int i = 0; i < 400; i++, ops--) {
			busy_step(d, &p);
			expect_same(&p);
			urgent += p.queue.urgent != 0;
		}
		neap_engine_close(p.engine);
	}
	if (worlds > 20 && urgent < worlds)
		trial_fail("somebody was urgent in %ld steps of %ld worlds", urgent, worlds);
}

int main(void)
{
	trial_run("an engine ends every ticket as a list of people would", same_as_a_list);
	trial_run("and under overload, where some become urgent", nobody_starves);
	return trial_verdict();
}
