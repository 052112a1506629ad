/* SPDX-License-Identifier: MIT */
/* turn.c - time passes, and heads are asked.
 *
 * Time is never skipped, unless the process stood still (late.c). Whatever call comes in at 'now',
 * everything due before happens first, in order, each at its own instant: a head whose token came 80 us ago is charged 80 us ago, so the
 * one behind it loses nothing by a late loop, and several grants may fall due in one call.
 *
 * What falls due at one and the same instant happens in the order of arrival: first those who may
 * go are asked, post by post, the eldest first; then sleepers wake, and those whose deadline this
 * is give up. So a grant at the very deadline is a grant.
 *
 * A post is dirty when its first line must be asked again: its instant came, a permit came back,
 * or the one before it left. Dirty posts are a heap, not a recursion, and it is empty between
 * calls. Always the eldest of their firsts is asked, so of two who wait at different posts for
 * what a third limiter has the elder has it. A line's record and a post for it are reserved when
 * the line begins, so no grant, move or cancel can fail.
 *
 * Nobody starves. A head that needs two limiters is overtaken at each in turn while it stands at
 * the other, under overload for ever: so heads count their moves, and from the 8th on one is
 * urgent. There is one urgent head at most, the eldest of those who would be. From then on a
 * younger one takes of its limiters only what does not make it come later (ask.c): where the
 * instant at which it goes is known, anything that has come back by then, and else what leaves
 * enough for it now. So a limit per day that it waits for stops no limit per second meanwhile:
 * only near its end are tokens kept, and no more than it asks. (Schedulers call this backfilling;
 * D. Lifka, 1995.)
 *
 *   It goes.  Let w be the eldest who waits. At its post nobody passes it, so it is asked there
 *             when the limiter has what it asks: it goes, or moves. If it moved for ever it would
 *             be urgent at the 8th move, nobody being there who is older. Then its instant gets
 *             no later any more: all others are younger, and none takes what delays it. At each
 *             limiter it stands at most once more, and goes; or permits that are out never come
 *             back, which no order of waiting could help. Who is now the eldest goes next.
 *   No knot.  Who is held up is held up by somebody older, who stands there or is urgent. The
 *             eldest is held up by limiters alone, and these by time, and by permits that are out.
 *   Nobody is forgotten.  Who is held up stands at a limiter of the urgent one's. The firsts at
 *             those are asked each time that it was asked and has to stay, and when it is gone, by
 *             whatever way; its instant changes at no other time. So there are as many wake-ups
 *             more as it has limiters, a few times in a wait that had 8 moves before. Where nobody
 *             is urgent there are none, and it costs a comparison with 0.
 */
#include "engine.h"
#include "change.h"
#include "wheel.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

enum { PATIENCE = 8 };   /* moves until a head is urgent */

/* ---- posts ---- */

/* What becomes of a dirty post. */
enum { IN_TURN = 1, BEING_SERVED };

void neap_turn_arm(struct neap_engine *e, uint32_t name)
{
	const struct neap_waiter *w = waiter(e, name);
	const struct neap_line *l = neap_line_at(&e->lines, w->line);
	const struct neap_post *p = neap_post_at(&e->lines, l->post);
	neap_ns due = w->deadline;
	if (l->head == name && p->first == w->line && p->due < due)
		due = p->due;
	if (due < neap_on_give)
		neap_wheel_set(e->wheel, name - 1, due);
	else
		neap_wheel_cancel(e->wheel, name - 1);
}

static struct neap_nodes turns(const struct neap_engine *e)
{
	const struct neap_roster *r = &e->lines.post;
	return (struct neap_nodes){r->record + offsetof(struct neap_post, turn), r->size};
}

/* Among the dirty ones, by who is first there. */
static void put_in_turn(struct neap_engine *e, uint32_t post)
{
	struct neap_post *p = neap_post_at(&e->lines, post);
	p->dirty = IN_TURN;
	p->turn.arrival = p->first ? neap_line_at(&e->lines, p->first)->node.arrival : 0;
	neap_heap_add(turns(e), &e->dirty, post);
}

static void out_of_turn(struct neap_engine *e, uint32_t post)
{
	struct neap_post *p = neap_post_at(&e->lines, post);
	if (p->dirty != IN_TURN)
		return;
	neap_heap_remove(turns(e), &e->dirty, post);
	p->dirty = 0;
}

void neap_turn_mark(struct neap_engine *e, uint32_t post)
{
	if (neap_post_at(&e->lines, post)->dirty)
		return;
	e->stats.wakeups++;
	put_in_turn(e, post);
}

static uint32_t new_post(struct neap_engine *e, const struct neap_limiter *l, uint64_t tag)
{
	struct neap_lines *s = &e->lines;
	uint32_t post = neap_roster_add(&s->post, l, tag);
	if (l->kind == NEAP_CONDITIONAL) {
		neap_post_at(s, post)->conditional = 1;
		neap_post_at(s, post)->next = s->conditional;
		if (s->conditional)
			neap_post_at(s, s->conditional)->prev = post;
		s->conditional = post;
	}
	return post;
}

static void remove_post(struct neap_engine *e, uint32_t post)
{
	struct neap_lines *s = &e->lines;
	const struct neap_post *p = neap_post_at(s, post);
	if (p->conditional) {
		*(p->prev ? &neap_post_at(s, p->prev)->next : &s->conditional) = p->next;
		if (p->next)
			neap_post_at(s, p->next)->prev = p->prev;
	}
	neap_roster_remove(&s->post, post);
}

void neap_turn_vacated(struct neap_engine *e, uint32_t post)
{
	const struct neap_post *p = neap_post_at(&e->lines, post);
	out_of_turn(e, post);   /* who is first there now is another */
	if (p->first)
		neap_turn_mark(e, post);
	else if (!p->dirty)
		remove_post(e, post);
}

int neap_turn_stand(struct neap_engine *e, uint32_t line, const struct neap_asked *a, int32_t term)
{
	uint32_t post = neap_post_of(&e->lines, a, term);
	if (!post)
		post = new_post(e, neap_asked_place(a, term), neap_asked_place_tag(a, term));
	struct neap_post *p = neap_post_at(&e->lines, post);
	uint32_t was_first = p->first;
	neap_line_stand(&e->lines, line, post, term);
	if (p->first != line)
		return 0;
	p->due = neap_on_give;
	out_of_turn(e, post);   /* it has just been asked, and nobody behind it may pass */
	if (was_first)
		neap_turn_arm(e, neap_line_at(&e->lines, was_first)->head);   /* its deadline alone */
	return 1;
}

void neap_turn_begin_line(struct neap_engine *e, const struct neap_asked *a, uint32_t costs,
			  uint32_t name, int32_t bound)
{
	struct neap_verdict v = neap_lines_decide(&e->lines, a, UINT64_MAX, e->at);
	int may_go = v.term < 0;   /* another thread gave back since 'bound' refused: ask at once */
	uint32_t line =
		neap_roster_add(&e->lines.line, a->all, neap_line_tag(a->all, costs, a->key));
	struct neap_line *l = neap_line_at(&e->lines, line);
	l->all = a->all;
	l->costs = costs;
	memcpy(l->keys, a->key, sizeof l->keys);
	neap_line_join(&e->lines, line, name);
	int first = neap_turn_stand(e, line, a, may_go ? bound : v.term);
	if (first && !may_go)
		neap_post_at(&e->lines, l->post)->due = v.at;
	neap_turn_arm(e, name);
	if (first && may_go)
		neap_turn_mark(e, l->post);
	neap_turn_settle(e);
}

/* ---- urgency ---- */

void neap_turn_ask_held_up(struct neap_engine *e)
{
	const struct neap_lines *s = &e->lines;
	uint32_t own = s->urgent ? neap_line_of(s, s->urgent)->post : 0;
	for (const struct neap_want *w = s->want; w < s->want + s->wants; w++) {
		uint32_t post = neap_roster_find(&s->post, w->of, w->tag);
		if (post && post != own && neap_post_at(s, post)->first)
			neap_turn_mark(e, post);
	}
}

void neap_turn_relieve(struct neap_engine *e)
{
	e->lines.urgent = 0;
	neap_turn_ask_held_up(e);
}

/* The urgent one was asked, and has to stay: others may hear of another instant, and conditions
 * may have changed what it asks. */
static void heed(struct neap_engine *e, const struct neap_asked *a)
{
	struct neap_lines *s = &e->lines;
	s->wants = 0;
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		if (c)
			s->want[s->wants++] = (struct neap_want){
				neap_asked_place(a, i), neap_asked_place_tag(a, i), c};
	}
	neap_turn_ask_held_up(e);
}

/* A head has moved to another post. */
static void hurry(struct neap_engine *e, uint32_t name)
{
	struct neap_lines *s = &e->lines;
	if (++neap_line_of(s, name)->moves < PATIENCE)
		return;
	if (s->urgent && waiter(e, s->urgent)->arrival < waiter(e, name)->arrival)
		return;
	if (s->urgent && s->urgent != name)
		neap_turn_relieve(e);
	s->urgent = name;
}

/* ---- turns ---- */

/* Take a waiter out of its line, and the line away when it was the last; and end its ticket. 'a' may
 * be NULL when no term decided that. 1: the queue has another head now, and its line stands nowhere
 * until that one does. */
static int end(struct neap_engine *e, uint32_t name, const struct neap_asked *a, int status,
	       int32_t bound)
{
	uint32_t line = waiter(e, name)->line;
	const struct neap_line *l = neap_line_at(&e->lines, line);
	struct neap_stats *s = neap_line_asks(&e->lines, name)->stats;
	if (s) {
		neap_ns wait = e->at + 1 - (neap_ns)waiter(e, name)->arrival;
		neap_stats_end(s, a, status, bound, wait > 0 ? wait : 0);
	}
	if (l->queue && l->head == name)
		neap_line_step_back(&e->lines, line);
	neap_line_leave(&e->lines, name, status);
	e->stats.waiting--;
	neap_ticket_end(e, name, status, bound, a ? a->on : 0);
	int turns_on = l->queue && l->count && neap_line_next(l) != l->head;
	if (l->post && (turns_on || !l->count))
		neap_line_step_back(&e->lines, line);
	if (!l->count)
		neap_roster_remove(&e->lines.line, line);
	if (e->lines.urgent == name)
		neap_turn_relieve(e);
	return turns_on;
}

/* Behind 'next', who is asked now, stands one who is asked soon. In a long line its record and
 * timer lie anywhere, and take as long to come as all the rest of a grant: fetch them meanwhile. */
static void expect(struct neap_engine *e, uint32_t next)
{
	uint32_t behind = next ? waiter(e, next)->next : 0;
	if (!behind)
		return;
	__builtin_prefetch(waiter(e, behind), 1);
	__builtin_prefetch(&waiter(e, behind)->cost, 1);
	neap_wheel_expect(e->wheel, behind - 1);
}

static int ended_as(const struct neap_verdict *v, neap_ns at)
{
	return v->shed ? NEAP_SHED : v->at <= at ? NEAP_GRANTED : NEAP_NEVER;
}

/* Ask the first line of a post, and the next when it is gone, until one has to wait here or is
 * younger than who is to be asked elsewhere. */
static void serve(struct neap_engine *e, uint32_t post)
{
	neap_ns at = e->at;
	for (;;) {
		struct neap_post *p = neap_post_at(&e->lines, post);
		if (!p->first) {
			remove_post(e, post);
			return;
		}
		uint32_t line = p->first;
		const struct neap_line *l = neap_line_at(&e->lines, line);
		uint32_t name = l->head;
		if (e->dirty && neap_post_at(&e->lines, e->dirty)->turn.arrival < l->node.arrival) {
			put_in_turn(e, post);
			return;
		}
		const struct neap_waiter *w = waiter(e, name);
		struct neap_asked a;
		neap_asked_ready(&a, l->all, w->cost, l->keys, at, NEAP_WANT);
		struct neap_verdict v;
		do
			v = neap_lines_decide(&e->lines, &a, w->arrival, at);
		while (v.at <= at && neap_asked_claim(&a, at) > at);   /* another thread was faster */
		if (v.at <= at || v.at == neap_never || v.shed) {
			expect(e, w->next);
			if (end(e, name, &a, ended_as(&v, at), v.term))
				neap_front_stand(e, line, post);
		} else if (neap_post_of(&e->lines, &a, v.term) == post) {
			p->due = v.at;
			p->dirty = 0;
			neap_turn_arm(e, name);
			if (name == e->lines.urgent)
				heed(e, &a);
			return;
		} else {
			neap_line_step_back(&e->lines, line);
			if (neap_turn_stand(e, line, &a, v.term))
				neap_post_at(&e->lines, neap_line_at(&e->lines, line)->post)->due = v.at;
			neap_turn_arm(e, name);
			hurry(e, name);
			if (name == e->lines.urgent)
				heed(e, &a);
		}
	}
}

/* Conditional limiters before which somebody stands, of this limiter or under this pause. */
static void ask_conditional(struct neap_engine *e, const struct neap_limiter *l)
{
	const struct neap_lines *s = &e->lines;
	for (uint32_t post = s->conditional; post; post = neap_post_at(s, post)->next) {
		const struct neap_limiter *of = neap_post_at(s, post)->key.of;
		const struct neap_conditional *c = &of->as.conditional;
		if (c->of == l || c->pause[0] == &l->as.pause || c->pause[1] == &l->as.pause)
			neap_turn_mark(e, post);
	}
}

void neap_turn_ask_anew(struct neap_engine *e, const struct neap_asked *a, int32_t i)
{
	uint32_t post = neap_post_of(&e->lines, a, i);
	if (post)
		neap_turn_mark(e, post);
	if (e->lines.conditional)
		ask_conditional(e, a->faces->terms[i].limiter);
}

static void ask_anew_at(struct neap_engine *e, const struct neap_limiter *l, uint64_t tag)
{
	uint32_t post = neap_roster_find(&e->lines.post, l, tag);
	if (post)
		neap_turn_mark(e, post);
}

void neap_turn_ask_key_anew(struct neap_engine *e, const struct neap_limiter *l, uint64_t key)
{
	ask_anew_at(e, l, key);
	ask_anew_at(e, neap_keyed_own(l->as.keyed, key), 0);
	ask_anew_at(e, neap_keyed_shared(l->as.keyed), 0);
}

void neap_turn_ask_all_anew(struct neap_engine *e, const struct neap_limiter *l)
{
	struct neap_lines *s = &e->lines;
	if (l->kind != NEAP_KEYED) {
		ask_anew_at(e, l, 0);
		ask_conditional(e, l);
		return;
	}
	ask_anew_at(e, neap_keyed_shared(l->as.keyed), 0);
	for (uint32_t post = 1; post <= s->post.used; post++)
		if (neap_post_at(s, post)->key.of == l)
			neap_turn_mark(e, post);
}

void neap_turn_settle(struct neap_engine *e)
{
	while (e->dirty) {
		uint32_t post = e->dirty;
		neap_heap_remove(turns(e), &e->dirty, post);
		neap_post_at(&e->lines, post)->dirty = BEING_SERVED;   /* no more marks */
		serve(e, post);
	}
}

void neap_turn_leave(struct neap_engine *e, uint32_t name, int status)
{
	uint32_t line = waiter(e, name)->line;
	const struct neap_line *l = neap_line_at(&e->lines, line);
	uint32_t post = l->post, head = l->head;
	const struct neap_post *p = neap_post_at(&e->lines, post);
	int was_first = p->first == line;
	int32_t term = status == NEAP_TIMEOUT ? neap_front_term(e, name) : -1;
	if (end(e, name, NULL, status, term)) {
		neap_front_stand(e, line, 0);
		if (head != name)
			neap_turn_arm(e, head);   /* its deadline alone */
		if (was_first && p->first != line)
			neap_turn_vacated(e, post);
	} else if (was_first && head == name) {
		neap_turn_mark(e, post);
	}
}

void neap_turn_drop(struct neap_engine *e, uint32_t name, int status)
{
	neap_turn_leave(e, name, status);
	neap_turn_settle(e);
}

/* ---- time ---- */

/* Two lists in order of arrival, as one. */
static uint32_t merged(struct neap_engine *e, uint32_t a, uint32_t b)
{
	uint32_t list, *end = &list;
	while (a && b) {
		uint32_t *first = waiter(e, a)->arrival < waiter(e, b)->arrival ? &a : &b;
		*end = *first;
		end = &waiter(e, *first)->next_due;
		*first = *end;
	}
	*end = a ? a : b;
	return list;
}

/* A list by next_due, sorted by arrival: runs of 1, 2, 4, … are merged as they come. */
static uint32_t by_arrival(struct neap_engine *e, uint32_t list)
{
	uint32_t run[32] = {0};
	while (list) {
		uint32_t one = list, i = 0;
		list = waiter(e, one)->next_due;
		waiter(e, one)->next_due = 0;
		for (; run[i]; i++) {
			one = merged(e, run[i], one);
			run[i] = 0;
		}
		run[i] = one;
	}
	for (int i = 0; i < 32; i++)
		list = merged(e, run[i], list);
	return list;
}

/* All whose timers are due at this instant, in order of arrival. */
static void happen(struct neap_engine *e, uint32_t all)
{
	for (uint32_t n = all; n; n = waiter(e, n)->next_due) {
		const struct neap_waiter *w = waiter(e, n);
		if (w->state == SLEEPING)
			continue;
		const struct neap_line *l = neap_line_at(&e->lines, w->line);
		const struct neap_post *p = neap_post_at(&e->lines, l->post);
		if (l->head == n && p->first == w->line && p->due <= e->at)
			neap_turn_mark(e, l->post);
	}
	neap_turn_settle(e);
	for (uint32_t n = all; n; n = waiter(e, n)->next_due) {
		const struct neap_waiter *w = waiter(e, n);
		if (w->state == SLEEPING) {
			e->stats.sleeping--;
			neap_ticket_end(e, n, NEAP_WOKEN, -1, 0);
		} else if (w->state == WAITING && w->deadline <= e->at) {
			neap_turn_drop(e, n, NEAP_TIMEOUT);
		}
	}
}

neap_ns neap_turn_to(struct neap_engine *e, neap_ns now)
{
	assert(now >= 0 && now < neap_horizon);
	neap_ns due;
	int64_t id;
	if (now >= neap_horizon)
		now = neap_horizon - 1;
	if (now < e->at)
		now = e->at;
	if (__builtin_expect(e->book_due <= now, 0))
		neap_book_come(e, now);
	if (now - e->at > e->late_ns && now - neap_wheel_next(e->wheel) > e->late_ns)
		neap_late_jump(e, now);
	while (neap_wheel_count(e->wheel) && (id = neap_wheel_pop(e->wheel, now, &due)) >= 0) {
		if (due > e->at)
			e->at = due;
		uint32_t all = 0, count = 0;
		for (; id >= 0; id = neap_wheel_pop_more(e->wheel, due), count++) {
			waiter(e, (uint32_t)id + 1)->next_due = all;
			all = (uint32_t)id + 1;
		}
		happen(e, count > 1 ? by_arrival(e, all) : all);
	}
	e->at = now;
	return now;
}
