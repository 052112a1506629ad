/* SPDX-License-Identifier: MIT */
/* asked.c - a request, made ready to be asked.
 *
 * Most terms are what they say: so much of this limiter. Two kinds stand for something that only
 * shows when a request is there:
 *
 *      keyed         the limiter of the request's key: a face, put together from the table's word
 *                    (keyed.c), which is written back when something was done
 *      conditional   a limiter, and how much of it is asked: one multiple while a pause is on, and
 *                    another while none is. 0 is nothing: then the term is not asked at all
 *
 *      all        { concurrency x1 } { throttled x1|x0 } { bytes x20|x1 }      the pause is on
 *                        |                   |                 |
 *      faces      { concurrency x1 } { throttled x1 }   { bytes x20 }          ordinary terms
 *
 * So each request is asked with terms of its own, on the stack, in the places that the built ones
 * have; and to whatever asks, takes and gives back they are ordinary ones. Who stands in line is
 * made ready anew whenever it is asked: so it feels a pause that began behind its back, and one
 * that has ended. What it was charged depends on that, and is not to be found out later: the answer
 * and the completion say which conditions held, and whoever gives back tells it again.
 *
 * Faces of a table that processes share are copies, and stale when they are to be taken of. So who
 * takes, gives or settles first enters the stripes they are from, all, in one order, and reads them again;
 * if they refuse then, it is as if another thread had been faster, and who asks does so anew.
 * Between processes, too, nobody sees some of a take's words written and others not: who could is
 * let in when all are. (One who is killed in the midst has charged some for a call that never left.)
 *
 * While a pause is on, a conditional term need not wait longer than for its end. Then it is asked
 * for less (never for more, so that an instant does not become later by itself): what it says is the
 * first instant of the two. When a condition ends is seen once, when the request is made ready, so
 * that who is asked and who takes go by the same, whatever other threads do to the pause.
 *
 * Who waits for a conditional term stands before that, not before its limiter: so all who stand
 * there are asked when the condition ends, and what else the limiter is asked for plainly does not
 * keep them.
 */
#include "asked.h"
#include "change.h"

#include <assert.h>

static int64_t times(int64_t multiplier, int64_t more)   /* both below 2^31 */
{
	return multiplier * more;
}

/* The term's multiplier, and what it asks, in place of its conditional. */
static void resolve(struct neap_asked *a, int32_t i, const struct neap_conditional *c)
{
	a->term[i].limiter = c->of;
	a->term[i].multiplier = times(a->term[i].multiplier, a->on >> i & 1 ? c->on : c->off);
}

static void see_conditions(struct neap_asked *a, neap_ns now)
{
	a->on = 0;
	for (int32_t i = 0; i < a->all->count; i++) {
		const struct neap_limiter *l = a->all->terms[i].limiter;
		if (l->kind != NEAP_CONDITIONAL)
			continue;
		a->ends[i] = neap_conditional_ends(&l->as.conditional, now);
		a->on |= (uint64_t)(a->ends[i] > now) << i;
	}
}

static void expect_keys(const struct neap_asked *a)
{
	for (int32_t i = 0; i < a->all->count; i++) {
		const struct neap_limiter *l = a->all->terms[i].limiter;
		if (l->kind == NEAP_KEYED)
			neap_keyed_hint(l->as.keyed, a->key[a->all->terms[i].key]);
	}
}

/* Terms of its own; a->on says which conditions hold. */
static void make_faces(struct neap_asked *a, neap_ns now, int how)
{
	const struct neap_all *all = a->all;
	a->count = 0;
	for (int32_t i = 0; i < all->count; i++) {
		const struct neap_term *t = &all->terms[i];
		a->term[i] = *t;
		a->face_of[i] = -1;
		if (t->limiter->kind == NEAP_CONDITIONAL)
			resolve(a, i, &t->limiter->as.conditional);
		if (t->limiter->kind != NEAP_KEYED)
			continue;
		if (i > 0 && t[-1].limiter == t->limiter) {
			a->term[i].limiter = a->term[i - 1].limiter;
			a->face_of[i] = a->face_of[i - 1];
			continue;
		}
		struct neap_face *f = &a->face[a->count];
		a->term[i].limiter =
			neap_keyed_face(f, t->limiter->as.keyed, a->key[t->key], now, how);
		if (a->term[i].limiter == &f->limiter)
			a->face_of[i] = (int8_t)a->count++;
	}
	a->own = (struct neap_all){a->term, all->count, all->kinds, all->stats};
	a->faces = &a->own;
}

void neap_asked_ready(struct neap_asked *a, const struct neap_all *all, const int64_t *cost,
		      const uint64_t *key, neap_ns now, int how)
{
	a->all = a->faces = all;
	a->cost = cost;
	a->key = key;
	a->on = 0;
	if (neap_asked_is_plain(all))
		return;
	if (neap_asked_is_keyed(all))
		expect_keys(a);
	if (neap_asked_is_conditional(all))
		see_conditions(a, now);
	make_faces(a, now, how);
}

void neap_asked_again(struct neap_asked *a, const struct neap_request *r, neap_ns now)
{
	a->all = a->faces = r->all;
	a->cost = r->cost;
	a->key = r->key;
	a->on = r->on;
	if (!neap_asked_is_plain(r->all))
		make_faces(a, now, NEAP_GIVE);
}

/* What term i and those after it of its conditional would ask if the condition did not hold. */
static int64_t cost_otherwise(const struct neap_asked *a, int32_t i)
{
	const struct neap_limiter *l = a->all->terms[i].limiter;
	int64_t sum = 0;
	for (; i < a->all->count && a->all->terms[i].limiter == l; i++) {
		struct neap_term t = a->all->terms[i];
		t.multiplier = times(t.multiplier, l->as.conditional.off);
		sum = neap_plus(sum, neap_term_cost(&t, a->cost));
	}
	return sum;
}

neap_ns neap_asked_when_on(const struct neap_asked *a, int32_t i, int64_t cost, neap_ns now)
{
	const struct neap_limiter *l = a->faces->terms[i].limiter;
	neap_ns at = neap_limiter_when(l, cost, now), ends = a->ends[i];
	if (at <= now || at <= ends || ends >= neap_horizon)
		return at;
	int64_t then = cost_otherwise(a, i);
	at = then ? neap_limiter_when(l, then, ends) : ends;
	return at > ends ? at : ends;
}

/* ---- verbs ---- */

/* Faces that are from tables of others, too, in the order of these. */
struct entered {
	struct neap_face *face[NEAP_TERMS];
	int count;
};

/* Who shares the tables of faces is kept out until _leave. */
static void enter(struct neap_asked *a, struct entered *in, neap_ns now)
{
	in->count = 0;
	for (int32_t i = 0; i < a->count; i++) {
		struct neap_face *f = &a->face[i];
		if (!f->stripe)
			continue;
		int at = in->count++;
		for (; at > 0 && neap_face_before(f, in->face[at - 1]); at--)
			in->face[at] = in->face[at - 1];
		in->face[at] = f;
	}
	for (int i = 0; i < in->count; i++)
		neap_face_enter(in->face[i], now);
}

/* Is there room for all keys of which something is asked? */
static int has_room(const struct neap_asked *a)
{
	for (int32_t i = 0, next; i < a->faces->count; i = next)
		if (neap_all_cost(a->faces, a->cost, i, &next) && neap_asked_room_at(a, i))
			return 0;
	return 1;
}

/* The terms of a face that found no room ask the limiter that all such ones share, if there is one. */
static void stand_in(struct neap_asked *a, struct neap_face *f)
{
	if (!f->instead)
		return;
	for (int32_t i = 0; i < a->all->count; i++)
		if (a->face_of[i] >= 0 && &a->face[a->face_of[i]] == f) {
			a->term[i].limiter = f->instead;
			a->face_of[i] = -1;
		}
	f->of = NULL;
	f->stripe = NULL;
}

static void leave(struct neap_asked *a, struct entered *in)
{
	for (int i = in->count - 1; i >= 0; i--) {
		neap_face_leave(in->face[i]);
		if (in->face[i]->room_at)
			stand_in(a, in->face[i]);
	}
}

/* An entry for every key that has none. Where there is no room nothing is charged, or somebody would
 * have been turned away. */
static void hold(struct neap_asked *a)
{
	for (int32_t i = 0; i < a->count; i++) {
		struct neap_face *f = &a->face[i];
		if (f->of && !f->word && !f->room_at)
			f->word = neap_face_entry(f);
		assert(!f->of || f->word || f->room_at);
	}
}

static void write_words(struct neap_asked *a)
{
	for (int32_t i = 0; i < a->count; i++)
		neap_face_write(&a->face[i]);
}

typedef neap_ns taking(const struct neap_all *, const int64_t *, neap_ns, int32_t *);

static neap_ns take_with(struct neap_asked *a, taking *take, neap_ns now)
{
	struct entered in;
	neap_ns at = neap_never;
	enter(a, &in, now);
	if (has_room(a)) {   /* else somebody was faster */
		at = take(a->faces, a->cost, now, NULL);
		if (at <= now) {
			hold(a);   /* not before, for that may have another key forgotten */
			write_words(a);
		}
	}
	leave(a, &in);
	return at;
}

neap_ns neap_asked_take(struct neap_asked *a, neap_ns now)
{
	return a->faces == a->all ? neap_all_take(a->all, a->cost, now, NULL)
				  : take_with(a, neap_all_take, now);
}

neap_ns neap_asked_claim(struct neap_asked *a, neap_ns now)
{
	return a->faces == a->all ? neap_all_claim(a->all, a->cost, now, NULL)
				  : take_with(a, neap_all_claim, now);
}

/* Is term i's key forgotten, with what was out? Then there is nothing to give back to. */
static int is_forgotten(const struct neap_asked *a, int32_t i)
{
	return a->faces != a->all && a->face_of[i] >= 0 && !a->face[a->face_of[i]].word;
}

/* Of 'c' permits that come back to a limiter that all share who found no room: not more than are out,
 * for they may be those of a key that was forgotten. */
static int64_t at_most_shared(const struct neap_limiter *l, int64_t c)
{
	if (!l || l->kind != NEAP_SEMAPHORE || c <= 0)
		return 0;
	int64_t out = __atomic_load_n(&l->as.semaphore.in_use, __ATOMIC_RELAXED) & INT64_MAX;
	return c < out ? c : out;
}

/* Of 'c' permits that come back for term i: not more than are out, for their key may have been
 * forgotten and be used anew. When it has none, they may be of that limiter, *l then, though there
 * is room by now. */
static int64_t at_most_out(const struct neap_asked *a, int32_t i, int64_t c, struct neap_limiter **l)
{
	if (a->faces == a->all || a->all->terms[i].limiter->kind != NEAP_KEYED ||
	    (*l)->kind != NEAP_SEMAPHORE)
		return c;
	if (a->face_of[i] < 0)
		return at_most_shared(*l, c);
	const struct neap_face *f = &a->face[a->face_of[i]];
	if (!f->word) {
		*l = f->instead;
		return at_most_shared(*l, c);
	}
	int64_t out = neap_face_out(f);
	return c < out ? c : out;
}

void neap_asked_give(struct neap_asked *a, int outcome, neap_ns at, neap_ns now)
{
	struct entered in = {.count = 0};
	if (a->faces != a->all)
		enter(a, &in, now);
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		struct neap_limiter *l = a->faces->terms[i].limiter;
		if (!c)
			continue;
		c = at_most_out(a, i, c, &l);
		if (c)
			neap_limiter_give(l, c, outcome, at, now);
	}
	if (a->faces != a->all)
		write_words(a);
	leave(a, &in);
}

void neap_asked_settle(struct neap_asked *a, const int64_t *used, neap_ns at, neap_ns now)
{
	struct entered in = {.count = 0};
	if (a->faces != a->all)
		enter(a, &in, now);
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		int64_t u = neap_all_cost(a->faces, used, i, &next);
		struct neap_limiter *l = a->faces->terms[i].limiter;
		int is_rate = l->kind == NEAP_GCRA;
		if (is_forgotten(a, i) && (u > c || is_rate)) {
			struct neap_face *f = &a->face[a->face_of[i]];
			int nothing_out = is_rate || c == 0;   /* that was forgotten with it */
			if (u <= c || f->room_at || !nothing_out)
				continue;
			f->word = neap_face_entry(f);
		} else if (u < c) {
			c = u + at_most_out(a, i, c - u, &l);
		}
		if (c != u)
			neap_limiter_settle(l, c, u, at, now);
	}
	if (a->faces != a->all)
		write_words(a);
	leave(a, &in);
}

/* ---- for later (book.c) ---- */

void neap_asked_later(struct neap_asked *a, neap_ns at, neap_ns now)
{
	uint64_t on = a->on;
	for (int32_t i = 0; on && i < a->all->count; i++)
		if (on >> i & 1 && a->ends[i] <= at)
			a->on &= ~(UINT64_C(1) << i);
	if (a->on != on)
		make_faces(a, now, NEAP_WANT);
}

void neap_asked_book(struct neap_asked *a, neap_ns at, neap_ns now)
{
	if (a->faces != a->all)
		hold(a);
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		struct neap_limiter *l = a->faces->terms[i].limiter;
		if (c && l->kind == NEAP_WINDOW)
			neap_window_settle(&l->as.window, 0, c, at, now);
		else if (c && l->kind != NEAP_GCRA)
			neap_limiter_take(l, c, now);
	}
	if (a->faces != a->all)
		write_words(a);
}

void neap_asked_unbook(struct neap_asked *a, neap_ns at, neap_ns now)
{
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		struct neap_limiter *l = a->faces->terms[i].limiter;
		c = c ? at_most_out(a, i, c, &l) : 0;
		if (c && l->kind != NEAP_GCRA)
			neap_limiter_settle(l, c, 0, at, now);
	}
	if (a->faces != a->all)
		write_words(a);
}
