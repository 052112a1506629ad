/* SPDX-License-Identifier: MIT */
#include "pilot.h"

#include <math.h>

__extension__ typedef __int128 wide;

enum { REACHED, MOVED, LOWERED, CUT, SAMPLE };

static void note(struct pilot *p, int what, neap_ns at, neap_ns rtt)
{
	if (p->count < PILOT_PAGES)
		p->page[p->count++] = (struct pilot_page){what, at, rtt};
}

void pilot_init(struct pilot *p, const struct neap_strategy *s, int64_t floor, int64_t ceiling,
		int64_t initial)
{
	p->s = *s;
	p->s.decrease = fmin(1, fmax(0, s->decrease));
	if (p->s.increase == 0)
		p->s.increase = 1;
	if (p->s.beta < p->s.alpha)
		p->s.beta = p->s.alpha;
	p->floor = floor > 1 ? floor : 1;
	p->ceiling = ceiling > p->floor ? ceiling : p->floor;
	p->limit = initial < p->floor ? p->floor : initial > p->ceiling ? p->ceiling : initial;
	p->estimate = p->limit;
	p->out = p->count = p->unsure = 0;
}

int64_t pilot_in_use(const struct pilot *p)
{
	wide sum = 0;
	for (int i = 0; i < p->out; i++)
		sum += p->call[i].cost;
	return (int64_t)(sum < INT64_C(1) << 60 ? sum : INT64_C(1) << 60);
}

/* How many more calls of this cost fit: at least one, none yet, or none ever. */
neap_ns pilot_when(const struct pilot *p, int64_t cost, neap_ns now)
{
	if (cost > p->ceiling)
		return neap_never;
	if (cost == 0 || pilot_in_use(p) == 0)
		return now;
	return (wide)pilot_in_use(p) + cost <= p->limit ? now : neap_on_give;
}

void pilot_take(struct pilot *p, int64_t cost, neap_ns now)
{
	if (cost == 0)
		return;
	p->call[p->out++] = (struct neap_stamp){now, cost};
	if ((wide)pilot_in_use(p) + cost > p->limit)
		note(p, REACHED, now, 0);
}

/* Did it happen at 'since' or later; and, if told so, after the limit last moved? */
static int happened(const struct pilot *p, int what, neap_ns since, int unmoved)
{
	for (int i = p->count - 1; i >= 0; i--) {
		if (p->page[i].what == what && p->page[i].at >= since)
			return 1;
		if (unmoved && p->page[i].what == MOVED)
			return 0;
	}
	return 0;
}

/* The best of this half and the one before. Halves are counted from the first sample. */
static neap_ns best(const struct pilot *p, int count, neap_ns now)
{
	neap_ns half = (p->s.memory_ns + 1) / 2, first = -1, least = neap_never;
	for (int i = 0; i < count; i++) {
		const struct pilot_page *g = &p->page[i];
		if (g->what != SAMPLE)
			continue;
		first = first < 0 ? g->at : first;
		if (half && (g->at - first) / half < (now - first) / half - 1)
			continue;
		least = g->rtt < least ? g->rtt : least;
	}
	return least;
}

static long double mean(struct pilot *p)
{
	long double sum = 0, m = 0;
	int n = 0, last = p->count - 1;
	for (int i = 0; i <= last; i++) {
		const struct pilot_page *g = &p->page[i];
		if (g->what != SAMPLE)
			continue;
		if (n < 10) {
			/* a mean that was shortened counts as if all so far had been shorter */
			sum = m * n + g->rtt;
			m = sum / ++n;
		} else {
			long double share = 2.0L / (p->s.window + 1.0L);
			m = m * (1 - share) + g->rtt * share;
		}
		p->unsure |= fabsl(m / g->rtt - 2) < 1e-9L;
		if (i < last && m / g->rtt > 2)
			m *= 0.9L;
	}
	return m;
}

/* Where a success would have the limit; where it is, if nowhere else. */
static long double target(struct pilot *p, neap_ns rtt, neap_ns now)
{
	const struct neap_strategy *s = &p->s;
	if (s->kind == NEAP_AIMD)
		return p->estimate + s->increase;
	if (s->kind == NEAP_GRADIENT) {
		long double slope = s->tolerance * mean(p) / rtt;
		return p->estimate * fminl(1, fmaxl(0.5L, slope)) + s->queue;
	}
	if ((s->options & NEAP_BEST_HOLDS) && rtt < best(p, p->count - 1, now))
		return p->estimate;
	wide product = (wide)p->limit * best(p, p->count, now);
	wide fits = s->options & NEAP_ROUND_UP ? product / rtt : (product + rtt - 1) / rtt;
	wide queue = p->limit - fits;
	wide unit = s->options & NEAP_LOG10 && p->limit >= 10 ? (wide)floorl(log10l(p->limit)) : 1;
	if (s->threshold >= 0 && queue <= s->threshold * unit)
		return p->estimate + (long double)(s->beta * unit);
	if (queue < s->alpha * unit)
		return p->estimate + (long double)(s->increase * unit);
	if (queue <= s->beta * unit)
		return p->estimate;
	return s->shrink > 0 ? p->estimate * s->shrink
			     : p->estimate - (long double)(s->increase * unit);
}

static long double within(const struct pilot *p, long double limit)
{
	return fminl(p->ceiling, fmaxl(p->floor, limit));
}

void pilot_give(struct pilot *p, int i, int outcome, neap_ns now, long double *low,
		long double *high)
{
	const struct neap_strategy *s = &p->s;
	struct neap_stamp call = p->call[i];
	wide in_use = pilot_in_use(p);
	neap_ns rtt = now > call.at ? now - call.at : 1;
	*low = *high = p->estimate;
	p->call[i] = p->call[--p->out];
	if (outcome == NEAP_IGNORE || s->kind == NEAP_STEERED)
		return;
	if (outcome == NEAP_FAILURE || (s->slow_ns && rtt > s->slow_ns)) {
		if (s->options & NEAP_ONE_CUT && happened(p, CUT, call.at, 0))
			return;
		note(p, CUT, now, 0);
		long double left = (long double)p->limit * s->decrease, tiny = left * 0x1p-52L;
		*low = within(p, floorl(left - tiny));
		*high = within(p, floorl(left + tiny));
		return;
	}
	note(p, SAMPLE, now, rtt);
	if ((in_use + call.cost - 1) * s->use < p->limit && s->use)
		return;
	long double to = target(p, rtt, now), tiny = fmaxl(fabsl(to), p->estimate) * 0x1p-40L;
	if (s->smoothing == 1 && s->kind != NEAP_GRADIENT && s->shrink == 0)
		tiny = 0;   /* whole numbers all the way */
	if (to > p->estimate + tiny && s->options & NEAP_GROW_WHEN_USED &&
	    !happened(p, REACHED, call.at, 1))
		return;
	if (to < p->estimate - tiny && s->options & NEAP_ONE_CUT &&
	    happened(p, LOWERED, call.at, 0))
		return;
	to = p->estimate + s->smoothing * (to - p->estimate);
	*low = within(p, to - tiny);
	*high = within(p, to + tiny);
}

void pilot_moved(struct pilot *p, int64_t limit, double fraction, neap_ns now)
{
	if (limit < p->limit)
		note(p, LOWERED, now, 0);
	if (limit != p->limit)
		note(p, MOVED, now, 0);
	p->limit = limit;
	p->estimate = (long double)limit + fraction;
}
