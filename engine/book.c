/* SPDX-License-Identifier: MIT */
/* book.c - a request that is granted for an instant which is still to come.
 *
 * One who waits holds nothing: his tokens are taken when he goes. One who books is told his instant
 * at once and may come back then by any way, so they are taken now, such that at that instant all is
 * as if he had been in line and was let go. What that means depends on the kind:
 *
 *      window      an entry of then, in the log
 *      rate        charged as of then. One that is short of tokens until then, and is what is waited
 *                  for, owes them: the debt drains just in time. One that has enough loses what
 *                  would flow past its full bucket until then, for if it were charged now it would
 *                  be full again, and let a whole burst go beside the booked call
 *
 *                     now          full           at
 *                  ----|------------|--------------|-----> time
 *                      |<-- debt -->|<--- lost --->|<- cost ->|   tat
 *
 *      permits     out from now on. Nobody knows when one comes back, so there is none to book then
 *      pause       until it ends. One that begins later does not reach who has booked
 *      breaker     a closed one lets go. Its trial calls are for now
 *
 * So of two limits, where one has to be waited for, the other is not to be used up meanwhile; if
 * charging it would turn others away who find it full, we do not book: they would pay for a call that
 * is far away. Then it can be booked later, when it is nearer. One limit alone is never too far.
 *
 * Who books stands in no line: behind those who wait there is no instant, for where they stand next
 * depends on who leaves. Nor does he go before them.
 *
 * So of a rate that is booked there are two stories: what really was taken of it, and that with all
 * who are booked coming one after another, each at its instant:
 *
 *      real ----> at the first's instant, or later if it is not full: + cost ----> ... ----> tat
 *
 * The rate itself is the second: so whoever takes or waits in between leaves what is booked, and need
 * not know of it. When one is undone it is told again from the first without him, and nothing is left
 * of him; when his call comes it is part of the first. The first is not written down when others
 * take: it is what it was, or full by now, and what tat has moved by since. (So those who took of a
 * rate that would have been full keep what it lost: against ourselves, never for.)
 *
 * Bookings that are to come are a list by instant, short: each is a call that somebody is about to
 * make. They come before all else that is due by then: what was taken up to here was taken earlier.
 *
 * Invariant: e->book_due is the first one's instant, or neap_never, and above e->at
 */
#include "engine.h"

#include <stdlib.h>

/* Of a rate, in units, when this was last looked at; all who ask it have the same. */
struct seen {
	int64_t real, tat;
	uint64_t speed[2];   /* whose units */
	uint8_t shift;
};

struct neap_booking {
	struct neap_booking *next;
	struct neap_request request;
	neap_ns at;
	struct seen seen[];   /* of each term that is a rate */
};

/* ---- rates ---- */

static const struct neap_limiter *of(const struct neap_request *r, int32_t i)
{
	const struct neap_limiter *l = r->all->terms[i].limiter;
	return l->kind == NEAP_CONDITIONAL ? l->as.conditional.of : l;
}

/* Do term i of the one and term j of the other ask the same? */
static int is_same(const struct neap_request *r, int32_t i, const struct neap_request *q, int32_t j)
{
	return of(r, i) == of(q, j) &&
	       (of(r, i)->kind != NEAP_KEYED ||
		r->key[r->all->terms[i].key] == q->key[q->all->terms[j].key]);
}

/* What it was charged by term i and those after it of the same limiter. */
static int64_t charged(const struct neap_request *r, int32_t i, int32_t *next)
{
	const struct neap_limiter *l = r->all->terms[i].limiter;
	int64_t c = neap_all_cost(r->all, r->cost, i, next);
	if (l->kind != NEAP_CONDITIONAL)
		return c;
	const struct neap_conditional *when = &l->as.conditional;
	return c * (r->on >> i & 1 ? when->on : when->off);
}

/* Those who have booked the same rate, one after another. */
struct others {
	const struct neap_gcra *g;
	const struct neap_request *request;
	int32_t term;
	struct neap_booking *booking;   /* the next one to look at */
	int32_t next;                   /* and its term */
	int64_t cost;                   /* of the last one */
	neap_ns at;
};

static struct others others(const struct neap_engine *e, const struct neap_gcra *g,
			    const struct neap_booking *b, int32_t i)
{
	return (struct others){
		.g = g, .request = &b->request, .term = i, .booking = e->booked};
}

/* Was it another rate, which was changed since? */
static int is_stale(const struct neap_gcra *g, const struct seen *s)
{
	return s->speed[0] != g->speed[0] || s->speed[1] != g->speed[1] || s->shift != g->shift;
}

/* NULL: there are no more. */
static struct seen *another(struct others *o)
{
	for (; o->booking; o->booking = o->booking->next, o->next = 0) {
		const struct neap_request *q = &o->booking->request;
		while (o->next < q->all->count) {
			int32_t j = o->next;
			o->cost = charged(q, j, &o->next);
			o->at = o->booking->at;
			if (o->cost && is_same(o->request, o->term, q, j) &&
			    !is_stale(o->g, &o->booking->seen[j]))
				return &o->booking->seen[j];
		}
	}
	return NULL;
}

static struct seen seen_of(const struct neap_gcra *g, int64_t from)
{
	return (struct seen){from, neap_word_value(&g->tat), {g->speed[0], g->speed[1]}, g->shift};
}

/* What was really taken, up to 'now'. */
static int64_t real(const struct neap_gcra *g, const struct seen *s, neap_ns now)
{
	int64_t clock = neap_gcra_clock(g, now);
	return (s->real > clock ? s->real : clock) + neap_word_value(&g->tat) - s->tat;
}

/* All who booked the rate of b's term i see it so. */
static void see(const struct neap_engine *e, const struct neap_gcra *g,
		const struct neap_booking *b, int32_t i, int64_t from)
{
	struct seen seen = seen_of(g, from);
	struct others o = others(e, g, b, i);
	for (struct seen *s; (s = another(&o));)
		*s = seen;
}

/* Begin with what was really taken, and let all come that are booked. */
static void tell(const struct neap_engine *e, struct neap_gcra *g, const struct neap_booking *b,
		 int32_t i, int64_t from)
{
	struct others o = others(e, g, b, i);
	int64_t tat = from > 0 ? from : 0;
	while (another(&o))
		tat = neap_gcra_then(g, tat, o.cost, o.at);
	g->tat = tat;
	see(e, g, b, i, from);
}

/* ---- booking ---- */

/* The first instant from 'at' on at which all terms conform. */
static neap_ns earliest(const struct neap_asked *a, neap_ns at, int32_t *bound)
{
	neap_ns asked;
	do {
		asked = at;
		for (int32_t i = 0, next; i < a->faces->count && asked < neap_horizon; i = next) {
			int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
			neap_ns when = c ? neap_asked_when(a, i, c, asked) : asked;
			if (when > at) {
				at = when;
				*bound = i;
			}
		}
	} while (at > asked);
	return at;
}

/* From when on can it be booked for 'at'? */
static neap_ns near_enough(const struct neap_asked *a, neap_ns at, neap_ns now, int32_t *bound)
{
	neap_ns latest = now;
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		const struct neap_limiter *l = a->faces->terms[i].limiter;
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		neap_ns when = now;
		if (c && l->kind == NEAP_GCRA)
			when = neap_gcra_book_when(&l->as.gcra, c, at, now);
		else if (c && l->kind == NEAP_BREAKER && l->as.breaker.open)
			when = at;
		if (when > latest) {
			latest = when;
			*bound = i;
		}
	}
	return latest;
}

static void see_first(struct neap_engine *e)
{
	e->book_due = e->booked ? e->booked->at : neap_never;
}

/* A record of it, in its place. */
static struct neap_booking *enter(struct neap_engine *e, const struct neap_request *r, neap_ns at)
{
	struct neap_booking *b = calloc(1, sizeof *b + (size_t)r->all->count * sizeof b->seen[0]);
	struct neap_booking **place = &e->booked;
	if (!b)
		return NULL;
	while (*place && (*place)->at <= at)
		place = &(*place)->next;
	b->request = *r;
	b->at = at;
	b->next = *place;
	*place = b;
	see_first(e);
	return b;
}

static void leave(struct neap_engine *e, const struct neap_booking *b)
{
	struct neap_booking **place = &e->booked;
	while (*place != b)
		place = &(*place)->next;
	*place = b->next;
	see_first(e);
}

/* What others have seen of the rate that a new one books; or it is as it is. */
static struct seen see_first_time(const struct neap_engine *e, const struct neap_gcra *g,
				  const struct neap_booking *b, int32_t i)
{
	struct others o = others(e, g, b, i);
	const struct seen *s = another(&o);   /* b has seen nothing yet, and so is stale */
	return s ? *s : seen_of(g, neap_word_value(&g->tat));
}

static void tell_new(struct neap_engine *e, const struct neap_asked *asked, struct neap_booking *b)
{
	for (int32_t i = 0, next; i < asked->faces->count; i = next) {
		struct neap_limiter *l = asked->faces->terms[i].limiter;
		int64_t c = neap_all_cost(asked->faces, b->request.cost, i, &next);
		if (!c || l->kind != NEAP_GCRA)
			continue;
		b->seen[i] = see_first_time(e, &l->as.gcra, b, i);
		tell(e, &l->as.gcra, b, i, real(&l->as.gcra, &b->seen[i], e->at));
	}
}

/* Of a rate that was changed since nothing is known but the cost. */
static void tell_without(struct neap_engine *e, const struct neap_asked *asked,
			 const struct neap_booking *b)
{
	for (int32_t i = 0, next; i < asked->faces->count; i = next) {
		struct neap_limiter *l = asked->faces->terms[i].limiter;
		int64_t c = neap_all_cost(asked->faces, b->request.cost, i, &next);
		if (!c || l->kind != NEAP_GCRA)
			continue;
		if (is_stale(&l->as.gcra, &b->seen[i]))
			neap_gcra_settle(&l->as.gcra, c, 0, e->at);
		else
			tell(e, &l->as.gcra, b, i, real(&l->as.gcra, &b->seen[i], e->at));
	}
}

/* Of one who is refused at 'now', and whom nobody is ahead of. */
static struct neap_booking *book(struct neap_engine *e, const struct neap_request *r,
				 struct neap_asked *asked, neap_ns latest, struct neap_answer *a)
{
	neap_ns now = e->at;
	a->at = earliest(asked, now, &a->bound);
	if (a->at > latest || a->at >= neap_horizon)
		return NULL;
	neap_asked_later(asked, a->at, now);
	neap_ns from = near_enough(asked, a->at, now, &a->bound);
	if (from > now) {
		a->at = from;
		return NULL;
	}
	struct neap_booking *b = enter(e, r, a->at);
	if (!b) {
		a->status = NEAP_QUEUE_FULL;
		return NULL;
	}
	b->request.on = asked->on;
	tell_new(e, asked, b);
	neap_asked_book(asked, a->at, now);
	*a = (struct neap_answer){
		.status = NEAP_GRANTED, .bound = -1, .at = a->at, .on = asked->on};
	return b;
}

struct neap_booking *neap_engine_book(struct neap_engine *e, const struct neap_request *r,
				      neap_ns latest, neap_ns now, struct neap_answer *a)
{
	struct neap_asked asked;
	struct neap_booking *b = NULL;
	neap_engine_peek(e, r, now, a);
	if (a->status == NEAP_GRANTED) {
		neap_engine_try(e, r, e->at, a);
		return NULL;
	}
	neap_asked_ready(&asked, r->all, r->cost, r->key, e->at, NEAP_WANT);
	if (a->status == NEAP_REFUSED && a->ahead == 0)
		b = book(e, r, &asked, latest, a);
	if (r->all->stats)
		neap_stats_answer(r->all->stats, &asked, a);
	return b;
}

/* ---- undoing, and coming ---- */

static void undo(struct neap_engine *e, struct neap_booking *b)
{
	static const int64_t nothing[NEAP_COSTS];
	const struct neap_request *r = &b->request;
	struct neap_asked asked;
	neap_asked_again(&asked, r, e->at);
	if (r->all->stats)
		neap_stats_settle(r->all->stats, r, nothing);
	tell_without(e, &asked, b);
	neap_asked_unbook(&asked, b->at, e->at);
	for (int32_t i = 0; i < r->all->count; i++)
		neap_turn_ask_anew(e, &asked, i);
	neap_turn_settle(e);
}

static void come(struct neap_engine *e, const struct neap_booking *b)
{
	struct neap_asked asked;
	neap_asked_again(&asked, &b->request, e->at);
	for (int32_t i = 0, next; i < asked.faces->count; i = next) {
		const struct neap_limiter *l = asked.faces->terms[i].limiter;
		int64_t c = neap_all_cost(asked.faces, b->request.cost, i, &next);
		const struct neap_gcra *g = &l->as.gcra;
		if (c && l->kind == NEAP_GCRA && !is_stale(g, &b->seen[i]))
			see(e, g, b, i, neap_gcra_then(g, real(g, &b->seen[i], b->at), c, b->at));
	}
}

void neap_book_come(struct neap_engine *e, neap_ns now)
{
	while (e->book_due <= now) {
		const struct neap_booking *b = e->booked;
		leave(e, b);
		come(e, b);
	}
}

int neap_engine_unbook(struct neap_engine *e, struct neap_booking *b, neap_ns now)
{
	neap_turn_to(e, now);
	int in_time = e->at < b->at;
	if (in_time) {
		leave(e, b);
		undo(e, b);
	}
	free(b);
	return in_time;
}

void neap_book_close(struct neap_engine *e)
{
	for (struct neap_booking *b = e->booked, *next; b; b = next) {
		next = b->next;
		free(b);
	}
}

int neap_book_check(const struct neap_engine *e)
{
	if (e->book_due != (e->booked ? e->booked->at : neap_never) || e->book_due <= e->at)
		return NEAP_ECORRUPT;
	for (const struct neap_booking *b = e->booked; b && b->next; b = b->next)
		if (b->at > b->next->at)
			return NEAP_ECORRUPT;
	return NEAP_OK;
}
