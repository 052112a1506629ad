/* SPDX-License-Identifier: MIT */
/* engine.c - where limiters, lines and the wheel meet.
 *
 *      acquire ---> ask all terms ---> granted
 *                        | not yet: the term that says the latest instant binds
 *                        v
 *                   join the line; its head stands at the post of what binds;
 *                   the first at a post is armed on the wheel for that instant
 *                        |
 *      advance ---> its time came, or a give did ---> ask again, at that very instant
 *                        | yes: completion, next head      | no: stand where it binds now
 *
 * Time is a parameter of every verb: each begins by letting all that was due happen (turn.c), so
 * it finds the world as it is at 'now'. Who waits is in lines (line.c), by tickets (ticket.c).
 *
 * Invariants, between calls:
 *   every waiting ticket is in a line; every line's head stands at a post of one of its terms
 *   a timer is set to the lesser of its waiter's deadline and, for the first at a post, its due
 *   nothing due up to 'at' is left undone
 */
#include "engine.h"
#include "wheel.h"

#include <assert.h>
#include <stdlib.h>

enum { WAITERS_MOST = 1 << 24 };   /* what a ticket's index has room for */

static uint32_t costs_in_use(const struct neap_request *r)
{
	uint32_t tag = 0;
	for (int i = 0; i < NEAP_COSTS; i++) {
		assert(r->cost[i] >= 0 && r->cost[i] <= INT64_C(1) << 59);
		tag |= (uint32_t)(r->cost[i] > 0) << i;
	}
	return tag;
}

/* Who asks for nothing waits for nobody, in a queue either. */
static int queues(const struct neap_request *r)
{
	for (int32_t i = 0; r->queue && i < r->all->count; i++)
		if (r->cost[r->all->terms[i].cost])
			return 1;
	return 0;
}

static uint64_t line_tag(const struct neap_request *r)
{
	return neap_line_tag(r->all, costs_in_use(r), r->key);
}

/* The answer for a newcomer, with nothing taken. */
static void ask(struct neap_engine *e, const struct neap_request *r, const struct neap_asked *asked,
		struct neap_answer *a)
{
	struct neap_verdict v = neap_lines_decide(&e->lines, asked, UINT64_MAX, e->at);
	*a = (struct neap_answer){
		.status = NEAP_GRANTED, .at = v.at, .bound = v.term, .on = asked->on};
	if (v.shed) {
		a->status = NEAP_SHED;
	} else if (a->at == neap_never) {
		a->status = NEAP_NEVER;
	} else if (a->at > e->at) {
		a->status = NEAP_REFUSED;
		a->at = neap_lines_predict(&e->lines, asked, line_tag(r), e->at, &a->bound, &a->ahead);
		if (a->at <= e->at)
			a->at = e->at + 1;   /* an elder is there; when it goes nobody knows */
	}
}

void neap_engine_peek(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		      struct neap_answer *a)
{
	struct neap_asked asked;
	now = neap_turn_to(e, now);
	if (queues(r)) {
		neap_front_peek(e, r, &asked, a);
		return;
	}
	neap_asked_ready(&asked, r->all, r->cost, r->key, now, NEAP_LOOK);
	ask(e, r, &asked, a);
}

/* _try, which leaves in 'asked' what it asked. */
static void try(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		neap_ns now, struct neap_answer *a)
{
	neap_asked_ready(asked, r->all, r->cost, r->key, now, NEAP_WANT);
	do
		ask(e, r, asked, a);   /* again when another thread was faster */
	while (a->status == NEAP_GRANTED && neap_asked_take(asked, now) > now);
}

void neap_engine_try(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		     struct neap_answer *a)
{
	struct neap_asked asked;
	now = neap_turn_to(e, now);
	if (queues(r))
		neap_front_try(e, r, &asked, a);
	else
		try(e, r, &asked, now, a);
	if (r->all->stats)
		neap_stats_answer(r->all->stats, &asked, a);
}

/* _acquire, which leaves in 'asked' what it asked. */
static int acquire(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		   neap_ns now, struct neap_answer *a)
{
	now = neap_turn_to(e, now);
	if (queues(r))
		return neap_front_acquire(e, r, asked, a);
	try(e, r, asked, now, a);
	if (a->status != NEAP_REFUSED)
		return NEAP_OK;
	if (r->deadline <= e->at || (a->at > r->deadline && a->at < neap_on_give)) {
		a->status = NEAP_TIMEOUT;
		return NEAP_OK;
	}
	uint32_t line = neap_roster_find(&e->lines.line, r->all, line_tag(r));
	if (!line && (neap_roster_reserve(&e->lines.line, e->lines.line.count + 1) ||
		      neap_roster_reserve(&e->lines.post, e->lines.line.count + 2)))
		return NEAP_ENOMEM;
	uint32_t name = neap_ticket_begin(e);
	if (!name) {
		a->status = NEAP_QUEUE_FULL;
		return NEAP_OK;
	}
	neap_ticket_wait(e, name, r, a);
	if (line) {
		neap_line_join(&e->lines, line, name);
		neap_turn_arm(e, name);
	} else {
		neap_turn_begin_line(e, asked, costs_in_use(r), name, a->bound);
	}
	return NEAP_OK;
}

int neap_engine_acquire(struct neap_engine *e, const struct neap_request *r, neap_ns now,
			struct neap_answer *a)
{
	struct neap_asked asked;
	int code = acquire(e, r, &asked, now, a);
	struct neap_stats *s = r->all->stats;
	if (s && code == NEAP_OK) {
		neap_stats_answer(s, &asked, a);
		s->at_once += a->status != NEAP_WAITING;
	}
	return code;
}

int64_t neap_engine_sleep(struct neap_engine *e, neap_ns until, neap_ns now)
{
	neap_turn_to(e, now);
	uint32_t name = neap_ticket_begin(e);
	if (!name)
		return 0;
	struct neap_waiter *w = waiter(e, name);
	w->deadline = until;
	w->state = SLEEPING;
	e->stats.sleeping++;
	neap_wheel_set(e->wheel, name - 1, until > 0 ? until : 0);
	return neap_ticket_of(e, name);
}

int neap_engine_cancel(struct neap_engine *e, int64_t ticket, neap_ns now)
{
	neap_turn_to(e, now);
	uint32_t name = neap_ticket_find(e, ticket);
	switch (name ? waiter(e, name)->state : FREE) {
	case WAITING:
		neap_turn_drop(e, name, NEAP_CANCELLED);
		return 1;
	case SLEEPING:
		e->stats.sleeping--;
		neap_ticket_end(e, name, NEAP_CANCELLED, -1, 0);
		return 1;
	}
	return 0;
}

/* May an outcome let somebody go? */
static int gives_back(const struct neap_limiter *l)
{
	return l->kind == NEAP_SEMAPHORE || l->kind == NEAP_BREAKER || l->kind == NEAP_ADAPTIVE;
}

/* State changes of all breakers among the terms. */
static int64_t breaker_changes(const struct neap_all *all)
{
	int64_t changes = 0;
	if (!(all->kinds >> NEAP_BREAKER & 1) && !neap_asked_is_keyed(all))
		return 0;
	for (int32_t i = 0; i < all->count; i++)
		if (all->terms[i].limiter->kind == NEAP_BREAKER)
			changes += all->terms[i].limiter->as.breaker.changes;
	return changes;
}

void neap_engine_give(struct neap_engine *e, const struct neap_request *r, int outcome, neap_ns at,
		      neap_ns now)
{
	struct neap_asked asked;
	now = neap_turn_to(e, now);
	neap_asked_again(&asked, r, now);
	int64_t before = breaker_changes(asked.faces);
	neap_asked_give(&asked, outcome, at, now);
	int broke = breaker_changes(asked.faces) != before;   /* who waits elsewhere is to know */
	for (int32_t i = 0; i < r->all->count; i++)
		if (broke || gives_back(asked.faces->terms[i].limiter))
			neap_turn_ask_anew(e, &asked, i);
	neap_turn_settle(e);
}

void neap_engine_settle(struct neap_engine *e, const struct neap_request *r, const int64_t *used,
			neap_ns at, neap_ns now)
{
	struct neap_asked asked;
	now = neap_turn_to(e, now);
	neap_asked_again(&asked, r, now);
	if (r->all->stats)
		neap_stats_settle(r->all->stats, r, used);
	neap_asked_settle(&asked, used, at, now);
	for (int32_t i = 0; i < r->all->count; i++)
		neap_turn_ask_anew(e, &asked, i);
	neap_turn_settle(e);
}

void neap_engine_touch(struct neap_engine *e, const struct neap_limiter *l, neap_ns now)
{
	neap_turn_to(e, now);
	neap_turn_ask_all_anew(e, l);
	neap_turn_settle(e);
}

void neap_engine_touch_key(struct neap_engine *e, const struct neap_limiter *l, uint64_t key,
			   neap_ns now)
{
	neap_turn_to(e, now);
	neap_turn_ask_key_anew(e, l, key);
	neap_turn_settle(e);
}

int64_t neap_engine_advance(struct neap_engine *e, neap_ns now)
{
	neap_turn_to(e, now);
	return e->stats.completed;
}

neap_ns neap_engine_next_due(struct neap_engine *e)
{
	neap_ns next = neap_wheel_next(e->wheel);
	return next < neap_horizon ? next : neap_never;   /* no clock gets there */
}

/* ---- life and proof ---- */

struct neap_engine *neap_engine_open(uint32_t waiters_max, neap_ns now)
{
	if (waiters_max < 1 || waiters_max > WAITERS_MOST || now < 0 || now >= neap_horizon)
		return NULL;
	struct neap_engine *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	neap_roster_init(&e->lines.line, sizeof(struct neap_line));
	neap_roster_init(&e->lines.post, sizeof(struct neap_post));
	e->lines.waiter = calloc(waiters_max, sizeof *e->lines.waiter);
	e->wheel = neap_wheel_open(waiters_max, now);
	e->at = now;
	e->late_ns = neap_never;
	e->book_due = neap_never;
	e->waiters_max = waiters_max;
	if (!e->lines.waiter || !e->wheel) {
		neap_engine_close(e);
		return NULL;
	}
	return e;
}

void neap_engine_close(struct neap_engine *e)
{
	if (!e)
		return;
	neap_book_close(e);
	neap_wheel_close(e->wheel);
	neap_roster_free(&e->lines.line);
	neap_roster_free(&e->lines.post);
	free(e->lines.waiter);
	free(e);
}

void neap_engine_stats(const struct neap_engine *e, struct neap_engine_stats *out)
{
	*out = e->stats;
	out->waiters_max = e->waiters_max;
	out->lines = e->lines.line.count;
	out->bytes = neap_wheel_bytes(e->wheel) + neap_roster_bytes(&e->lines.line) +
		     neap_roster_bytes(&e->lines.post) +
		     (int64_t)(sizeof *e + e->waiters_max * sizeof(struct neap_waiter));
}

/* What the wheel makes of an instant. */
static neap_ns timer_of(neap_ns due)
{
	if (due == neap_never)
		return due;
	return due < 0 ? 0 : due > neap_horizon ? neap_horizon : due;
}

int neap_engine_check(const struct neap_engine *e)
{
	int64_t waiting = 0, sleeping = 0, completed = 0;
	if (neap_wheel_check(e->wheel) || neap_lines_check(&e->lines) || e->dirty || neap_book_check(e))
		return NEAP_ECORRUPT;
	for (uint32_t name = 1; name <= e->untouched; name++) {
		const struct neap_waiter *w = neap_waiter_at(&e->lines, name);
		const struct neap_line *l = neap_line_at(&e->lines, w->line);
		waiting += w->state == WAITING;
		sleeping += w->state == SLEEPING;
		completed += w->state > ENDED;
		neap_ns due = w->state == WAITING || w->state == SLEEPING ? w->deadline : neap_never;
		if (w->state == WAITING) {
			if (!w->line || l->post == 0 || due < e->at)
				return NEAP_ECORRUPT;
			const struct neap_post *p = neap_post_at(&e->lines, l->post);
			int asked = l->head == name && p->first == w->line;
			if (asked && p->due <= e->at)
				return NEAP_ECORRUPT;
			due = asked && p->due < due ? p->due : due;
			due = due < neap_on_give ? due : neap_never;
		}
		if (neap_wheel_due(e->wheel, name - 1) != timer_of(due))
			return NEAP_ECORRUPT;
	}
	const struct neap_waiter *u = neap_waiter_at(&e->lines, e->lines.urgent);
	if (e->lines.urgent && (u->state != WAITING || e->lines.wants < 1 ||
				neap_line_at(&e->lines, u->line)->head != e->lines.urgent))
		return NEAP_ECORRUPT;
	int counted = waiting == e->stats.waiting && sleeping == e->stats.sleeping &&
		      completed == e->stats.completed;
	return counted ? NEAP_OK : NEAP_ECORRUPT;
}
