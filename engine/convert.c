/* SPDX-License-Identifier: MIT */
/* convert.c - what somebody asked for, and what becomes of a limiter when that is another thing.
 *
 * Processes that share a limiter come with what they want it to be: a limiter as _init makes it. To
 * see whether two want the same, what _init was told is written down as words (doubles by their
 * bits), without the state. Where they differ, the limiter goes on as what the newer one wants and
 * keeps its state as far as that has a meaning there:
 *
 *     gcra        what neap_gcra_change keeps (guard.c, for it is taken from meanwhile)
 *     semaphore   permits out
 *     window      what is in the window
 *     breaker     open or closed, until when, and trials out; what counts as failed, under the same
 *                 rule
 *     adaptive    permits out, the limit within its new bounds; latencies, of the same kind
 */
#include "segment.h"

#include <assert.h>
#include <string.h>

static int64_t bits_of(double x)
{
	int64_t bits;
	x += 0.0;   /* one zero */
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static void spell_gcra(const struct neap_gcra *g, int64_t *w)
{
	const int64_t words[] = {
		g->burst, (int64_t)g->speed[0], (int64_t)g->speed[1], (int64_t)g->pace[0],
		(int64_t)g->pace[1], g->shift, g->pace_shift,
	};
	memcpy(w, words, sizeof words);
}

static void spell_trip(const struct neap_trip *t, int64_t *w)
{
	const int64_t words[] = {
		t->rule, t->failures, t->calls, t->least, t->slices, t->period_ns, bits_of(t->ratio),
	};
	memcpy(w, words, sizeof words);
}

static void spell_breaker(const struct neap_breaker *b, int64_t *w)
{
	const int64_t words[] = {b->cooldown_ns, b->patience_ns, b->trials, b->required, b->sheds};
	memcpy(w, words, sizeof words);
	spell_trip(&b->trip, w + sizeof words / sizeof words[0]);
}

static void spell_adaptive(const struct neap_adaptive *a, int64_t *w)
{
	const struct neap_strategy *s = &a->strategy;
	const int64_t words[] = {
		s->kind, s->options, s->increase, bits_of(s->decrease), bits_of(s->smoothing), s->use,
		s->slow_ns, s->alpha, s->beta, s->threshold, bits_of(s->shrink), s->memory_ns,
		bits_of(s->tolerance), s->queue, s->window, a->floor, a->ceiling,
	};
	static_assert(sizeof words < NEAP_SPEC_WORDS * sizeof *w, "room for all and the kind");
	memcpy(w, words, sizeof words);
}

int neap_limiter_spell(const struct neap_limiter *like, int64_t *spec)
{
	memset(spec, 0, NEAP_SPEC_WORDS * sizeof *spec);
	*spec++ = like->kind;
	switch (like->kind) {
	case NEAP_GCRA:
		spell_gcra(&like->as.gcra, spec);
		return NEAP_OK;
	case NEAP_SEMAPHORE:
		spec[0] = like->as.semaphore.limit;
		spec[1] = like->as.semaphore.overdraw;
		return NEAP_OK;
	case NEAP_WINDOW:
		spec[0] = like->as.window.limit;
		spec[1] = like->as.window.window_ns;
		spec[2] = like->as.window.size;
		return NEAP_OK;
	case NEAP_PAUSE:
		return NEAP_OK;
	case NEAP_BREAKER:
		spell_breaker(&like->as.breaker, spec);
		return neap_trip_words(&like->as.breaker.trip) < 0 ? NEAP_ERANGE : NEAP_OK;
	case NEAP_ADAPTIVE:
		spell_adaptive(&like->as.adaptive, spec);
		return NEAP_OK;
	}
	return NEAP_ERANGE;
}

int64_t neap_limiter_log_bytes(const struct neap_limiter *like)
{
	if (like->kind == NEAP_WINDOW)
		return (int64_t)like->as.window.size * (int64_t)sizeof(struct neap_stamp);
	if (like->kind == NEAP_BREAKER)
		return neap_trip_words(&like->as.breaker.trip) * (int64_t)sizeof(int64_t);
	return 0;
}

static int convert_breaker(struct neap_breaker *b, const struct neap_breaker *like, void *log)
{
	struct neap_breaker fresh = *b;
	int64_t was[7], is[7];
	spell_trip(&b->trip, was);
	spell_trip(&like->trip, is);
	int other = memcmp(was, is, sizeof was) != 0;
	if (other) {
		fresh.trip = like->trip;
		fresh.memory = log;
		fresh.first = fresh.count = 0;
		fresh.seen = fresh.failed = 0;
	}
	fresh.cooldown_ns = like->cooldown_ns;
	fresh.patience_ns = like->patience_ns;
	fresh.trials = like->trials;
	fresh.required = like->required;
	fresh.sheds = like->sheds;
	if (fresh.out > fresh.trials) {   /* those beyond are not heard of as trials in their places */
		fresh.lost += fresh.out - fresh.trials;
		fresh.out = fresh.trials;
	}
	if (fresh.succeeded >= fresh.required)
		fresh.succeeded = fresh.required - 1;
	*b = fresh;
	return other;
}

static void convert_adaptive(struct neap_adaptive *a, const struct neap_adaptive *like, neap_ns now)
{
	struct neap_adaptive fresh = *a;
	if (a->strategy.kind != like->strategy.kind) {
		fresh = *like;
		fresh.limit = a->limit;
		fresh.in_use = a->in_use;
		fresh.changes = a->changes;
		fresh.changed_at = a->changed_at;
	}
	fresh.strategy = like->strategy;
	neap_adaptive_bounds(&fresh, like->floor, like->ceiling, now);
	*a = fresh;
}

int neap_limiter_convert(struct neap_limiter *l, const struct neap_limiter *like, void *log,
			 neap_ns now)
{
	assert(l->kind == like->kind && l->kind != NEAP_GCRA);
	switch (l->kind) {
	case NEAP_SEMAPHORE:
		l->as.semaphore.limit = like->as.semaphore.limit;
		l->as.semaphore.overdraw = like->as.semaphore.overdraw;
		return 0;
	case NEAP_WINDOW: {
		struct neap_window *w = &l->as.window;
		uint32_t size = like->as.window.size > w->count ? like->as.window.size : w->count;
		return neap_window_change(w, like->as.window.limit, like->as.window.window_ns, log, size,
					  now) == NEAP_OK;
	}
	case NEAP_BREAKER:
		return convert_breaker(&l->as.breaker, &like->as.breaker, log);
	case NEAP_ADAPTIVE:
		convert_adaptive(&l->as.adaptive, &like->as.adaptive, now);
		return 0;
	}
	return 0;
}

static int check_window(const struct neap_window *w)
{
	int64_t used = 0, last = 0;
	for (uint32_t i = 0; i < w->count && w->count <= w->size; i++) {
		const struct neap_stamp *s = &w->log[((uint64_t)w->first + i) % w->size];
		if (s->at < last || s->cost < 0)
			return NEAP_ECORRUPT;
		last = s->at;
		used += s->cost;
	}
	return w->count <= w->size && w->first < w->size && used == w->used ? NEAP_OK : NEAP_ECORRUPT;
}

/* What the memory of a breaker holds, counted. */
static int check_breaker(const struct neap_breaker *b)
{
	int64_t seen = 0, failed = 0, least = 0;
	int slices = b->trip.rule == NEAP_TRIP_RATIO_WITHIN, half_open = b->open;
	uint32_t room = (uint32_t)(slices ? b->trip.slices : b->trip.failures);
	if (b->out < 0 || b->out > b->trials || b->lost < 0 || b->late < 0 || b->succeeded < 0 ||
	    b->succeeded >= b->required || (!half_open && (b->out || b->lost || b->succeeded)))
		return NEAP_ECORRUPT;
	if (b->trip.rule == NEAP_TRIP_ROW)
		return b->failed < 0 ? NEAP_ECORRUPT : NEAP_OK;
	if (b->trip.rule == NEAP_TRIP_RATIO) {
		for (int32_t i = 0; i < (int32_t)b->count; i++)
			failed += b->memory[i / 64] >> i % 64 & 1;
		return failed == b->failed && b->seen == b->count ? NEAP_OK : NEAP_ECORRUPT;
	}
	if (b->count > room)
		return NEAP_ECORRUPT;
	for (uint32_t i = 0; i < b->count; i++) {
		const int64_t *e = &b->memory[((uint64_t)b->first + i) % room * (slices ? 3 : 1)];
		if (e[0] < least)
			return NEAP_ECORRUPT;
		least = e[0];
		seen += slices ? e[1] : 1;
		failed += slices ? e[2] : 1;
	}
	return seen == b->seen && failed == b->failed ? NEAP_OK : NEAP_ECORRUPT;
}

int neap_limiter_check(const struct neap_limiter *l)
{
	const struct neap_adaptive *a = &l->as.adaptive;
	switch (l->kind) {
	case NEAP_WINDOW: return check_window(&l->as.window);
	case NEAP_BREAKER: return check_breaker(&l->as.breaker);
	case NEAP_SEMAPHORE: return l->as.semaphore.in_use < 0 ? NEAP_ECORRUPT : NEAP_OK;
	case NEAP_ADAPTIVE:
		return a->floor < 1 || a->limit < a->floor || a->limit > a->ceiling || a->in_use < 0 ||
		       a->fraction < 0 || a->fraction >= 1 ? NEAP_ECORRUPT : NEAP_OK;
	}
	return NEAP_OK;
}
