/* SPDX-License-Identifier: MIT */
/* stats.c - what became of requests, in counters and one histogram.
 *
 * The engine answers every request and ends every ticket, so it is the one place that sees them
 * all, whoever asks and in whichever language. An all that has no stats costs a branch.
 *
 * Waits spread over nine orders of magnitude, and what is asked of them is a quantile. Octaves,
 * cut in four, bound the relative error and need no sorting and no choice of buckets:
 *
 *      0      1024    1280    1536    1792    2048      2560           2^50
 *      |---0----|---1---|---2---|---3---|---4---|----5----|---- … -160-|--161--> ns
 *
 * A bucket is at most a quarter as wide as its begin, so its middle is within an eighth of whatever
 * is in it. A sketch that keeps ranks instead of buckets would be exact where it matters, but two of
 * those do not add up to a third, and an exporter wants to add.
 *
 * Most calls of _acquire do not wait. They are a wait of 0 all the same, but one counter does for
 * all of them (at_once), so that a limiter nobody waits for needs no histogram.
 */
#include "engine.h"
#include "change.h"

enum { OCTAVE_FIRST = 10, PER_OCTAVE = 4 };   /* 2^10 ns */

static int32_t bucket_of(neap_ns wait_ns)
{
	if (wait_ns < INT64_C(1) << OCTAVE_FIRST)
		return 0;
	int octave = 63 - __builtin_clzll((uint64_t)wait_ns);
	int32_t bucket = 1 + (octave - OCTAVE_FIRST) * PER_OCTAVE + (int32_t)(wait_ns >> (octave - 2) & 3);
	return bucket < NEAP_WAIT_BUCKETS ? bucket : NEAP_WAIT_BUCKETS - 1;
}

/* Where a bucket begins. */
static neap_ns begin_of(int32_t bucket)
{
	if (bucket == 0)
		return 0;
	int octave = OCTAVE_FIRST + (bucket - 1) / PER_OCTAVE;
	return (neap_ns)(PER_OCTAVE + (bucket - 1) % PER_OCTAVE) << (octave - 2);
}

neap_ns neap_waits_bound(int32_t bucket)
{
	assert(bucket >= 0 && bucket < NEAP_WAIT_BUCKETS);
	return bucket < NEAP_WAIT_BUCKETS - 1 ? begin_of(bucket + 1) : neap_never;
}

void neap_waits_add(struct neap_waits *w, neap_ns wait_ns)
{
	w->bucket[bucket_of(wait_ns)]++;
	w->count++;
	w->sum_ns = neap_plus(w->sum_ns, wait_ns);
	if (wait_ns > w->max_ns)
		w->max_ns = wait_ns;
}

neap_ns neap_stats_wait(const struct neap_stats *s, int64_t per_million)
{
	assert(per_million >= 0 && per_million <= 1000000);
	const struct neap_waits *w = s->waits;
	int64_t count = s->at_once + (w ? w->count : 0);
	/* the rank, rounded up: of 10 the median is the 5th */
	int64_t rank = count / 1000000 * per_million + (count % 1000000 * per_million + 999999) / 1000000;
	rank += rank == 0;
	int64_t seen = s->at_once;
	if (!w || w->count == 0 || rank <= seen)
		return 0;
	int32_t b = 0;
	while (b < NEAP_WAIT_BUCKETS - 1 && (seen += w->bucket[b]) < rank)
		b++;
	if (b == NEAP_WAIT_BUCKETS - 1)
		return w->max_ns;
	neap_ns middle = begin_of(b) + (begin_of(b + 1) - begin_of(b)) / 2;
	return middle < w->max_ns ? middle : w->max_ns;
}

/* ---- causes ---- */

/* Why term 'bound' refuses: what it is, or that it never lets anything pass. */
static int cause_of(const struct neap_asked *a, int status, int32_t bound)
{
	if (bound < 0)
		return NEAP_BY_OTHER;
	const struct neap_term *t = &a->faces->terms[bound];
	const struct neap_limiter *l = t->limiter;
	if (l->kind == NEAP_BREAKER)
		return NEAP_BY_OPEN;
	if (status == NEAP_SHED)
		return NEAP_BY_FULL;
	if (status == NEAP_NEVER)
		return l->kind == NEAP_PAUSE || neap_limiter_capacity(l) < t->multiplier ? NEAP_BY_CLOSED
											  : NEAP_BY_COST;
	switch (l->kind) {
	case NEAP_GCRA:
	case NEAP_WINDOW: return NEAP_BY_RATE;
	case NEAP_PAUSE: return NEAP_BY_PAUSE;
	}
	return NEAP_BY_BUSY;
}

static void count(struct neap_stats *s, const struct neap_asked *a, int status, int32_t bound)
{
	switch (status) {
	case NEAP_GRANTED: s->granted++; break;
	case NEAP_TIMEOUT: s->expired++; break;
	case NEAP_CANCELLED: s->cancelled++; break;
	case NEAP_QUEUE_FULL: s->queue_full++; break;
	case NEAP_WAITING: break;
	default: s->refused[cause_of(a, status, bound)]++;
	}
}

void neap_stats_answer(struct neap_stats *s, const struct neap_asked *asked,
		       const struct neap_answer *a)
{
	if (a->status == NEAP_REFUSED && a->ahead > 0)
		s->refused[NEAP_BY_LINE]++;
	else
		count(s, asked, a->status, a->bound);
}

void neap_stats_end(struct neap_stats *s, const struct neap_asked *asked, int status, int32_t bound,
		    neap_ns wait_ns)
{
	count(s, asked, status, bound);
	s->waited += status == NEAP_GRANTED;
	if (s->waits)
		neap_waits_add(s->waits, wait_ns);
}

void neap_stats_settle(struct neap_stats *s, const struct neap_request *r, const int64_t *used)
{
	int up = 0, down = 0, any = 0;
	for (int32_t i = 0; i < r->all->count; i++) {
		int32_t c = r->all->terms[i].cost;
		up |= used[c] > r->cost[c];
		down |= used[c] < r->cost[c];
		any |= used[c] > 0;
	}
	s->undone += down && !any;
	s->settled_down += down && any;
	s->settled_up += up;
}
