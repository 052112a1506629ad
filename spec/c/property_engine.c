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
	struct neap_queue *room[QUEUE_ROOMS];
	int rooms;
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

/* ---- both ---- */

static void any_room(struct dice *d, struct room *r, struct neap_queue **q)
{
	r->capacity = (int)dice_any_size(d, 1, 20);
	r->overflow = (int)dice_between(d, NEAP_REJECT, NEAP_DROP_LOWEST);
	r->ageing_ns = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, 5000);
	*q = neap_queue_open((uint32_t)r->capacity, r->overflow, r->ageing_ns);
	if (!*q)
		trial_fail("no memory");
}

static void open_both(struct dice *d, struct pair *p, void (*make)(struct dice *, struct world *),
		      int rooms)
{
	memset(p, 0, sizeof *p);
	make(d, &p->world);
	world_copy(&p->queue.world, &p->world);
	p->waiters_max = (uint32_t)dice_between(d, 1, 30);
	p->now = p->queue.at = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, INT64_C(1) << 50);
	p->engine = neap_engine_open(p->waiters_max, p->now);
	if (!p->engine)
		trial_fail("no memory");
	for (p->rooms = 0; p->rooms < rooms; p->rooms++)
		any_room(d, &p->queue.room[p->rooms], &p->room[p->rooms]);
}

static void close_both(struct pair *p)
{
	neap_engine_close(p->engine);
	for (int i = 0; i < p->rooms; i++)
		neap_queue_close(p->room[i]);
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
static void expect_kept(const struct pair *p, const struct neap_answer *a,
			const struct queue_person *who, const struct queue_visit *v)
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
	/* who takes another's turn or place may let somebody go, and follow at that very instant */
	int a_moment = who->room >= 0 && a->at == p->queue.at + 1;
	struct queue_visit forever = *v;
	forever.who.deadline = neap_never;
	if (who->room >= 0)
		queue_stay(&q, &forever, INT64_C(1) << 53);
	else
		queue_join(&q, who->all, who->cost, neap_never, INT64_C(1) << 53);
	for (int i = 0; i < 500; i++) {
		for (int n = 0; n < q.ends; n++)
			if (q.ended[n].ticket == INT64_C(1) << 53) {
				if (q.ended[n].at < a->at - a_moment)
					trial_fail("granted at %ld, promised not before %ld",
						   q.ended[n].at, a->at);
				return;
			} else if (q.ended[n].status == NEAP_NEVER) {
				return;   /* and so does one for whom a limit is too low by now */
			}
		q.ends = 0;
		if (queue_next(&q) >= neap_horizon)
			return;
		queue_advance(&q, queue_next(&q));
	}
}

/* The request of somebody, who perhaps waits in a room. */
static void any_place(struct dice *d, struct pair *p, struct neap_request *r,
		      struct queue_person *who)
{
	int asks = 0;
	*r = (struct neap_request){.all = &p->world.all[who->all], .deadline = who->deadline};
	memcpy(r->cost, who->cost, sizeof r->cost);
	for (int i = 0; i < r->all->count; i++)
		asks |= r->cost[r->all->terms[i].cost] > 0;
	if (!p->rooms || !dice_between(d, 0, 2))
		return;
	int room = (int)dice_between(d, 0, p->rooms - 1);
	who->room = asks ? room : -1;   /* who asks for nothing waits for nobody */
	who->flow = r->flow = (uint64_t)dice_between(d, 0, 3);
	who->priority = r->priority = (int32_t)dice_between(d, 0, 2);
	r->queue = p->room[room];
}

static void expect_answer(struct pair *p, const struct neap_answer *a,
			  const struct queue_person *who, const struct queue_visit *v)
{
	int granted = a->status == NEAP_GRANTED, never = a->status == NEAP_NEVER;
	if (granted != (v->when <= p->queue.at && v->turn) || never != (v->when == neap_never))
		trial_fail("answer %d, the model says %ld at %ld, turn %d", a->status, v->when,
			   p->queue.at, v->turn);
	if (never && a->bound != v->term)
		trial_fail("never because of %d, not %d", a->bound, v->term);
	if (granted || never)
		return;
	if (a->at <= p->queue.at || a->bound < 0 || a->bound >= p->world.all[who->all].count)
		trial_fail("refused until %ld by %d, at %ld", a->at, a->bound, p->queue.at);
	int ahead = who->room < 0 ? queue_ahead(&p->queue, who->all, who->cost)
				  : queue_visit_ahead(&p->queue, v);
	if (a->ahead != ahead)
		trial_fail("%ld ahead, not %d", a->ahead, ahead);
	if (who->room < 0 || v->victim != (uint32_t)p->queue.arrivals + 1)
		expect_kept(p, a, who, v);
}

/* What the model does when the engine has answered. */
static void follow(struct pair *p, const struct neap_answer *a, const struct queue_person *who,
		   const struct queue_visit *v)
{
	if (a->status == NEAP_GRANTED) {
		neap_all_take(&p->queue.world.all[who->all], who->cost, p->queue.at, NULL);
		remember(p, who->all, who->cost, p->queue.at);
	} else if (a->status == NEAP_WAITING) {
		p->asked[p->asks] = *who;
		p->asked[p->asks++].ticket = a->ticket;
	}
	if (who->room < 0 && a->status == NEAP_WAITING)
		queue_join(&p->queue, who->all, who->cost, who->deadline, a->ticket);
	else if (who->room >= 0 && a->status == NEAP_GRANTED)
		queue_granted(&p->queue, v);
	else if (who->room >= 0 && a->status == NEAP_WAITING)
		queue_stay(&p->queue, v, a->ticket);
	else if (who->room >= 0)
		queue_withdraw(&p->queue, v);
}

static void ask(struct dice *d, struct pair *p, struct queue_person *who)
{
	struct neap_request r;
	struct neap_answer a, peeked;
	struct queue_visit v = {.turn = 1};
	int waits = (int)dice_between(d, 0, 3);
	any_place(d, p, &r, who);
	queue_advance(&p->queue, p->now);
	if (who->room >= 0)
		queue_visit(&p->queue, who, &v);
	else
		v.when = queue_decide(&p->queue, who->all, who->cost, UINT64_MAX, &v.term);
	neap_engine_peek(p->engine, &r, p->now, &peeked);
	expect_answer(p, &peeked, who, &v);
	if (!waits)
		neap_engine_try(p->engine, &r, p->now, &a);
	else if (neap_engine_acquire(p->engine, &r, p->now, &a))
		trial_fail("no memory");
	if (a.at != peeked.at || a.bound != peeked.bound || a.ahead != peeked.ahead)
		trial_fail("peek says %ld, acquire %ld", peeked.at, a.at);
	if (a.status != peeked.status && peeked.status != NEAP_REFUSED)
		trial_fail("peek answers %d, acquire %d", peeked.status, a.status);
	int full = p->queue.people + p->queue.ends >= (int)p->waiters_max;
	int late = r.deadline <= p->queue.at || (a.at > r.deadline && a.at < neap_on_give);
	int no_place = who->room >= 0 && v.victim == (uint32_t)p->queue.arrivals + 1;
	int wants = no_place ? NEAP_QUEUE_FULL
		    : late   ? NEAP_TIMEOUT
		    : full   ? NEAP_QUEUE_FULL
			     : NEAP_WAITING;
	if (peeked.status == NEAP_REFUSED && a.status != (waits ? wants : NEAP_REFUSED))
		trial_fail("answers %d, not %d; deadline %ld, %ld at best", a.status, wants, r.deadline,
			   a.at);
	follow(p, &a, who, &v);
}

static void ask_anything(struct dice *d, struct pair *p)
{
	struct queue_person who = {.room = -1, .all = (int)dice_between(d, 0, QUEUE_ALLS - 1)};
	for (int i = 0; i < QUEUE_COSTS; i++)
		who.cost[i] = dice_between(d, 0, 3) ? dice_between(d, 0, 1) : dice_between(d, 0, 3);
	who.deadline = dice_between(d, 0, 2) ? neap_never : p->now + dice_any_size(d, 1, 8000) - 2;
	ask(d, p, &who);
}

static void ask_for_some(struct dice *d, struct pair *p)
{
	struct queue_person who = {.room = -1, .all = (int)dice_between(d, 0, QUEUE_ALLS - 1)};
	int one = dice_between(d, 0, 3) ? (int)dice_between(d, 0, QUEUE_COSTS - 1) : -1;
	for (int i = 0; i < QUEUE_COSTS; i++)
		who.cost[i] = one < 0 ? dice_between(d, 0, 5) > 0 : i == one;
	who.deadline = dice_between(d, 0, 9) ? neap_never : p->now + dice_any_size(d, 1, 8000);
	ask(d, p, &who);
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

static void same_in(struct dice *d, int rooms_most)
{
	static struct pair p;
	for (int64_t ops = trial_ops(50000); ops > 0;) {
		open_both(d, &p, world_any, rooms_most ? (int)dice_between(d, 1, rooms_most) : 0);
		for (int i = 0; i < 200; i++, ops--) {
			step(d, &p);
			expect_same(&p);
		}
		close_both(&p);
	}
}

static void same_as_a_list(struct dice *d) { same_in(d, 0); }
static void same_with_rooms(struct dice *d) { same_in(d, QUEUE_ROOMS); }

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

static void busy_in(struct dice *d, int rooms)
{
	static struct pair p;
	int64_t urgent = 0, worlds = 0;
	for (int64_t ops = trial_ops(50000); ops > 0; worlds++) {
		open_both(d, &p, world_busy, rooms);
		for (int i = 0; i < 400; i++, ops--) {
			busy_step(d, &p);
			expect_same(&p);
			urgent += p.queue.urgent != 0;
		}
		close_both(&p);
	}
	if (worlds > 20 && urgent < worlds)
		trial_fail("somebody was urgent in %ld steps of %ld worlds", urgent, worlds);
}

static void nobody_starves(struct dice *d) { busy_in(d, 0); }
static void busy_with_rooms(struct dice *d) { busy_in(d, QUEUE_ROOMS); }

int main(void)
{
	trial_run("an engine ends every ticket as a list of people would", same_as_a_list);
	trial_run("and under overload, where some become urgent", nobody_starves);
	trial_run("and where some wait in queues", same_with_rooms);
	trial_run("and where some wait in queues under overload", busy_with_rooms);
	return trial_verdict();
}
