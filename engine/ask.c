/* SPDX-License-Identifier: MIT */
/* ask.c - the two questions about waiting, which change nothing.
 *
 * decide   May I go now, and if not, what holds me up? The same question for a head and for a
 *          newcomer: when do all my terms conform, and does somebody who arrived before me stand
 *          before one of them? An elder at a limiter is never overtaken there. One who waits
 *          elsewhere is: waiting holds no token that another could use. But where the urgent one
 *          (turn.c) asks, a younger one takes only what does not make it come later: what leaves
 *          enough at the instant at which the urgent one goes, or now when that is not known.
 * predict  How long at least, if I join now? Only what is certain counts: my own line goes first,
 *          and before a limiter so do the lines that ask it alone, all as early as they can; and
 *          the first there has been told when, unless that was for the urgent one's sake. A line
 *          that asks others, too, may move on to one of them with its next head and let me pass.
 *          So the instant is exact for a line on one rate, and otherwise never later than the
 *          truth, unless someone before me gives up.
 *
 *          Of a queue (predict_in) that is its head and those of one's own flow: others may go
 *          before or not, which depends on who comes.
 *
 * A term that turns away is not waited for: a breaker that is open, unless it was made to be
 * waited for, and a table with no room for another key.
 */
#include "change.h"
#include "line.h"

uint32_t neap_post_of(const struct neap_lines *s, const struct neap_asked *a, int32_t i)
{
	const struct neap_limiter *l = neap_asked_place(a, i);
	return neap_roster_find(&s->post, l, neap_asked_place_tag(a, i));
}

static int turns_away(const struct neap_limiter *l)
{
	return l->kind == NEAP_BREAKER && l->as.breaker.sheds;
}

/* What the urgent one asks before the limiter of term i, if that concerns who came at 'arrival'. */
static const struct neap_want *wanted(const struct neap_lines *s, const struct neap_asked *a,
				      int32_t i, uint64_t arrival)
{
	if (!s->urgent || neap_waiter_at(s, s->urgent)->arrival >= arrival)
		return NULL;
	const struct neap_limiter *of = neap_asked_place(a, i);
	uint64_t tag = neap_asked_place_tag(a, i);
	for (const struct neap_want *w = s->want; w < s->want + s->wants; w++)
		if (w->of == of && w->tag == tag)
			return w;
	return NULL;
}

/* From when on may 'c' be taken of the limiter of term i, so that the urgent one comes no later? */
static neap_ns lets_pass(const struct neap_lines *s, const struct neap_asked *a, int32_t i,
			 int64_t c, uint64_t arrival, neap_ns at)
{
	const struct neap_want *w = wanted(s, a, i, arrival);
	if (!w)
		return at;
	const struct neap_limiter *l = a->faces->terms[i].limiter;
	const struct neap_line *line = neap_line_of(s, s->urgent);
	const struct neap_post *p = line->post ? neap_post_at(s, line->post) : NULL;
	int known = p && p->first == neap_waiter_at(s, s->urgent)->line && p->due < neap_on_give;
	neap_ns goes = known && p->due > at ? p->due : at;
	int trial = l->kind == NEAP_BREAKER && l->as.breaker.open;   /* it may be the last */
	if (!trial && neap_limiter_after(l, c, w->cost, at) <= goes)
		return at;
	neap_ns both = neap_limiter_when(l, neap_plus(c, w->cost), at);
	return both > at && both < neap_on_give ? both : neap_on_give;
}

struct neap_verdict neap_lines_decide(const struct neap_lines *s, const struct neap_asked *a,
				      uint64_t arrival, neap_ns at)
{
	struct neap_verdict v = {.at = at, .term = -1};
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		const struct neap_limiter *l = a->faces->terms[i].limiter;
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		if (!c)
			continue;
		neap_ns when = neap_asked_when(a, i, c, at);
		neap_ns room_at = neap_asked_room_at(a, i);
		if (room_at && when != neap_never)
			return (struct neap_verdict){room_at, i, 1};
		if (when > at && turns_away(l))
			return (struct neap_verdict){when, i, 1};
		uint32_t post = when == neap_never ? 0 : neap_post_of(s, a, i);
		if (post) {
			uint32_t first = neap_post_at(s, post)->first;
			if (first && neap_line_at(s, first)->node.arrival < arrival)
				when = neap_on_give;
		}
		if (s->urgent && when < neap_on_give) {
			neap_ns lets = lets_pass(s, a, i, c, arrival, at);
			when = lets > when ? lets : when;
		}
		if (when == neap_on_give && neap_asked_is_on(a, i) && a->ends[i] < neap_horizon)
			when = a->ends[i];   /* whoever is in its way may not be any more */
		if (when > v.at) {
			v.at = when;
			v.term = i;
		}
	}
	return v;
}

/* When would term i conform after 'ahead' more tokens? Of a conditional one nothing is certain but
 * that it goes no sooner than alone; and a permit may come back before a pause ends. */
static neap_ns after(const struct neap_asked *a, int32_t i, int64_t ahead, int64_t c, neap_ns now)
{
	const struct neap_limiter *l = a->faces->terms[i].limiter;
	if (!neap_asked_may_change(a, i))
		return neap_limiter_after(l, ahead, c, now);
	return neap_limiter_when(l, c, now) == neap_on_give ? neap_on_give
							    : neap_asked_when(a, i, c, now);
}

neap_ns neap_lines_predict(const struct neap_lines *s, const struct neap_asked *a, uint64_t tag,
			   neap_ns now, int32_t *bound, int64_t *ahead)
{
	uint32_t line = neap_roster_find(&s->line, a->all, tag);
	const struct neap_line *l = line ? neap_line_at(s, line) : NULL;
	neap_ns latest = now;
	*ahead = 0;
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		if (!c)
			continue;
		uint32_t post = neap_post_of(s, a, i);
		const struct neap_post *p = post ? neap_post_at(s, post) : NULL;
		neap_sum queued = p ? p->queued : 0;
		int64_t waiting = p ? p->waiting : 0;
		if (l && !l->alone)
			queued += neap_line_queued(l, i);
		if (l && l->post != post)
			waiting += l->count;
		if (s->urgent && neap_waiter_at(s, s->urgent)->line != line &&
		    neap_line_of(s, s->urgent)->post != post &&
		    lets_pass(s, a, i, c, UINT64_MAX, now) > now)
			waiting++;
		int64_t before = queued < INT64_MAX ? (int64_t)queued : INT64_MAX;
		neap_ns at = after(a, i, before, c, now);
		if (p && at < p->due && !neap_asked_may_change(a, i) &&
		    (neap_line_at(s, p->first)->alone || p->first == line) &&
		    !wanted(s, a, i, neap_line_at(s, p->first)->node.arrival))
			at = p->due;
		if (waiting > *ahead)
			*ahead = waiting;
		if (at > latest) {
			latest = at;
			*bound = i;
		}
	}
	return latest;
}

int32_t neap_term_at(const struct neap_lines *s, const struct neap_asked *a, uint32_t post)
{
	int32_t any = -1;
	for (int32_t i = a->faces->count - 1; i >= 0; i--) {
		if (!a->cost[a->faces->terms[i].cost])
			continue;
		if (post && neap_post_of(s, a, i) == post)
			return i;
		any = i;
	}
	return any;
}

/* How many of other lines stand before term i, or hold up whoever asks 'c' of it. */
static int64_t others_ahead(const struct neap_lines *s, const struct neap_asked *a, int32_t i,
			    int64_t c, const struct neap_line *own, neap_ns now)
{
	uint32_t post = neap_post_of(s, a, i);
	int64_t count = post ? neap_post_at(s, post)->waiting : 0;
	if (own && own->post && own->post == post)
		count -= own->count;
	const struct neap_line *urgent = s->urgent ? neap_line_of(s, s->urgent) : NULL;
	if (urgent && urgent != own && urgent->post != post &&
	    lets_pass(s, a, i, c, UINT64_MAX, now) > now)
		count++;
	return count;
}

neap_ns neap_lines_predict_in(const struct neap_lines *s, const struct neap_asked *a,
			      const struct neap_before *b, neap_ns now, int32_t *bound,
			      int64_t *ahead)
{
	const struct neap_line *own = b->line ? neap_line_at(s, b->line) : NULL;
	neap_ns latest = now;
	*ahead = b->count;
	for (int32_t i = 0, next; i < a->faces->count; i = next) {
		int64_t c = neap_all_cost(a->faces, a->cost, i, &next);
		if (!c)
			continue;
		uint32_t post = neap_post_of(s, a, i);
		const struct neap_post *p = post ? neap_post_at(s, post) : NULL;
		neap_sum queued = p ? p->queued : 0;
		for (int32_t n = i; n < next && !neap_asked_may_change(a, i); n++)
			queued += b->queued[a->faces->terms[n].cost] * a->faces->terms[n].multiplier;
		int64_t before = queued < INT64_MAX ? (int64_t)queued : INT64_MAX;
		neap_ns at = after(a, i, before, c, now);
		/* who is first only because the queue has stepped back was not told when */
		const struct neap_line *first =
			p && p->first && post != b->left && !b->was_urgent
				? neap_line_at(s, p->first) : NULL;
		if (first && at < p->due && first->alone && !wanted(s, a, i, first->node.arrival))
			at = p->due;
		int64_t others = others_ahead(s, a, i, c, own, now);
		*ahead = others > *ahead ? others : *ahead;
		if (at > latest) {
			latest = at;
			*bound = i;
		}
	}
	const struct neap_post *p = own && own->post ? neap_post_at(s, own->post) : NULL;
	int told = p && p->first == b->line && (!s->urgent || s->urgent == own->head);
	if (b->head_goes && told && p->due > latest) {
		latest = p->due;
		*bound = neap_term_at(s, a, own->post);
	}
	return latest;
}
