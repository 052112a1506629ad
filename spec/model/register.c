/* SPDX-License-Identifier: MIT */
/* register.c - a breaker by going through everything again. */
#include "register.h"

/* An outcome that a closed breaker counts. */
struct mark { int failed; neap_ns now; };

struct walk {
	const struct reg *r;
	struct reg_view v;
	neap_ns ends;
	struct mark mark[REGISTER_PAGES];
	int marks;
	int unheard, succeeded;   /* trials since half-open began: not reported yet; that went well */
	neap_ns last;             /* when one was let out */
	neap_ns changed;          /* when it last closed, opened or was reset */
	int late;                 /* trials of that instant that were still out */
};

/* ---- closed ---- */

static int64_t row(const struct walk *w)
{
	int64_t n = 0;
	for (int i = w->marks - 1; i >= 0 && w->mark[i].failed; i--)
		n++;
	return n;
}

/* Calls that count at 'now', and failures among them. */
static int64_t calls(const struct walk *w, neap_ns now, int64_t *failures)
{
	const struct neap_trip *t = &w->r->trip;
	neap_ns slice = 0, each = t->slices ? (t->period_ns + t->slices - 1) / t->slices : 0;
	int64_t n = 0;
	*failures = 0;
	for (int i = 0; i < w->marks; i++) {
		neap_ns came = w->mark[i].now;
		if (i == 0 || came >= slice + each)
			slice = came;
		int counts = t->rule == NEAP_TRIP_RATIO ? w->marks - i <= t->calls
			   : t->rule == NEAP_TRIP_WITHIN ? now < came + t->period_ns
							 : now < slice + t->period_ns;
		n += counts;
		*failures += counts && w->mark[i].failed;
	}
	return n;
}

static int64_t failures(const struct walk *w, neap_ns now)
{
	int64_t failed;
	if (w->r->trip.rule == NEAP_TRIP_ROW)
		return row(w);
	calls(w, now, &failed);
	return failed;
}

static int is_met(const struct walk *w, neap_ns now)
{
	const struct neap_trip *t = &w->r->trip;
	int64_t failed = failures(w, now), n;
	if (t->rule == NEAP_TRIP_ROW || t->rule == NEAP_TRIP_WITHIN)
		return failed >= t->failures;
	n = calls(w, now, &failed);
	return n >= t->least && (double)failed / (double)n >= t->ratio;
}

/* ---- states ---- */

static void enter(struct walk *w, int state, neap_ns at)
{
	w->v.state = state;
	w->v.since = at;
	w->v.changes++;
	if (state != NEAP_BREAKER_HALF_OPEN) {
		w->changed = at;
		w->late = w->last == at ? w->unheard : 0;
	}
	w->v.lost = w->unheard = w->succeeded = 0;
	if (state == NEAP_BREAKER_CLOSED)
		w->marks = 0;
}

static void open_until(struct walk *w, neap_ns until, neap_ns now)
{
	if (w->v.state != NEAP_BREAKER_OPEN)
		enter(w, NEAP_BREAKER_OPEN, now);
	w->ends = until < now ? now : until > neap_horizon ? neap_horizon : until;
}

static void pass(struct walk *w, neap_ns now)
{
	if (w->v.state == NEAP_BREAKER_OPEN && now >= w->ends)
		enter(w, NEAP_BREAKER_HALF_OPEN, w->ends);
}

static neap_ns when(const struct walk *w, neap_ns now)
{
	neap_ns overdue = w->last + w->r->patience_ns;
	if (w->v.state == NEAP_BREAKER_OPEN)
		return w->ends == neap_horizon ? neap_on_give : w->ends;
	if (w->v.state == NEAP_BREAKER_CLOSED || w->unheard - w->v.lost < w->r->trials)
		return now;
	return overdue < now ? now : overdue > neap_horizon ? neap_horizon : overdue;
}

static void take(struct walk *w, neap_ns now)
{
	if (w->v.state != NEAP_BREAKER_HALF_OPEN || when(w, now) > now)
		return;
	w->v.lost += w->unheard - w->v.lost == w->r->trials;
	w->unheard++;
	w->last = now;
}

static void give(struct walk *w, const struct happening *h)
{
	if (h->at < w->v.since)
		return;
	if (h->at == w->changed && w->late) {
		w->late--;
		return;
	}
	if (w->v.state == NEAP_BREAKER_CLOSED && h->outcome != NEAP_IGNORE) {
		w->mark[w->marks++] = (struct mark){h->outcome == NEAP_FAILURE, h->now};
		if (h->outcome == NEAP_FAILURE && is_met(w, h->now))
			open_until(w, h->now + w->r->cooldown_ns, h->now);
	} else if (w->v.state == NEAP_BREAKER_HALF_OPEN && w->unheard) {
		w->v.lost -= w->v.lost && (h->at < w->last || w->unheard == w->v.lost);
		w->unheard--;
		if (h->outcome == NEAP_FAILURE)
			open_until(w, h->now + w->r->cooldown_ns, h->now);
		else if (h->outcome == NEAP_SUCCESS && ++w->succeeded == w->r->required)
			enter(w, NEAP_BREAKER_CLOSED, h->now);
	}
}

static void happen(struct walk *w, const struct happening *h)
{
	pass(w, h->now);
	switch (h->what) {
	case REGISTER_TAKE: take(w, h->now); break;
	case REGISTER_GIVE: give(w, h); break;
	case REGISTER_OPEN: open_until(w, h->at, h->now); break;
	case REGISTER_CLOSE:
	case REGISTER_RESET:
		if (w->v.state != NEAP_BREAKER_CLOSED)
			enter(w, NEAP_BREAKER_CLOSED, h->now);
		if (h->what == REGISTER_RESET) {
			w->marks = 0;
			w->late = w->changed == h->now ? w->late : 0;
			w->v.since = w->changed = h->now;
		}
	}
	pass(w, h->now);   /* a cooldown of 0 is over when it begins */
}

struct reg_view reg_look(const struct reg *r, neap_ns now)
{
	static struct walk w;
	w = (struct walk){.r = r, .v = {.state = NEAP_BREAKER_CLOSED}};
	for (int i = 0; i < r->count; i++)
		happen(&w, &r->page[i]);
	pass(&w, now);
	w.v.out = w.unheard - w.v.lost;
	w.v.when = when(&w, now);
	w.v.failures = failures(&w, now);
	return w.v;
}
