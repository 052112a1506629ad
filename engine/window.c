/* SPDX-License-Identifier: MIT */
/* window.c - an exact sliding log: at most 'limit' tokens in any span of one window.
 *
 * GCRA lets burst + rate through in some windows, a fixed counter twice its limit around the
 * border. Providers that count "in the last 60 seconds" are met exactly only by remembering each
 * grant until it leaves. That costs memory, so the log is bounded by its owner, and a full log
 * waits for its oldest entry rather than forgetting one.
 *
 *      first                 first + count
 *     -|--|----|--|-----|-------|--------> time
 *      '-- leaves at at + window_ns
 *
 * Time decides what has left; entries are dropped only by a take or a change, so asking stays const.
 *
 * Processes that share a log read their clocks before they come to it, so one may come with an
 * instant that is past. It joins the last entry, for it goes now. When it is settled there is no
 * entry of its instant, and the first later one is changed. That may be another's, who finds too
 * little in it, then, and goes on to the next: the sum is right, and nothing leaves sooner than it
 * should. Entries that have left, or were moved by a hold, or were there before the log was made new,
 * are missing as well; those are not meant, and 'sealed' says up to when they were.
 *
 * Invariants: instants in the log do not decrease; used is the sum of the costs in the log.
 */
#include "change.h"

#include <assert.h>

static struct neap_stamp *entry(const struct neap_window *w, uint32_t i)
{
	assert(w->size);
	return &w->log[((uint64_t)w->first + i) % w->size];
}

static neap_ns leaves(const struct neap_window *w, const struct neap_stamp *s)
{
	return s->at < neap_horizon - w->window_ns ? s->at + w->window_ns : neap_horizon;
}

int neap_window_init(struct neap_window *w, int64_t limit, neap_ns window_ns,
		     struct neap_stamp *log, uint32_t size)
{
	if (limit < 1 || limit > INT64_C(1) << 59 || window_ns < 1 || window_ns > neap_horizon ||
	    !log || size < 1)
		return NEAP_ERANGE;
	*w = (struct neap_window){
		.log = log, .limit = limit, .window_ns = window_ns, .size = size,
		.sealed = neap_horizon};
	return NEAP_OK;
}

neap_ns neap_window_when(const struct neap_window *w, int64_t cost, neap_ns now)
{
	assert(cost >= 0);
	if (cost > w->limit)
		return neap_never;
	if (cost == 0 || !w->count || leaves(w, entry(w, w->count - 1)) <= now)
		return now;
	int64_t used = w->used;
	uint32_t kept = w->count;
	neap_ns at = now;
	for (uint32_t i = 0; i < w->count; i++) {
		const struct neap_stamp *s = entry(w, i);
		/* an entry of this very instant is joined, so it needs no room in the log */
		int joins = w->count && entry(w, w->count - 1)->at >= at;
		int fits = used <= w->limit - cost && (kept < w->size || joins);
		if (fits && leaves(w, s) > at)
			break;
		used -= s->cost;
		kept--;
		if (leaves(w, s) > at)
			at = leaves(w, s);
	}
	return at;
}

/* Any one window holds at most the limit, so every whole limit ahead takes one window more. */
neap_ns neap_window_after(const struct neap_window *w, int64_t ahead, int64_t cost, neap_ns now)
{
	int64_t total = neap_plus(ahead, cost), whole = (total - 1) / w->limit;
	neap_ns at = neap_window_when(w, total - whole * w->limit, now), wait;
	if (__builtin_mul_overflow(whole, w->window_ns, &wait) || wait >= neap_horizon - at)
		return neap_horizon;
	return at + wait;
}

static void seal(struct neap_window *w, neap_ns at)
{
	w->sealed = w->sealed > at ? w->sealed : at;
}

/* Drop what has left the window. A log that is new, or new again, knows of nothing before. */
static void forget(struct neap_window *w, neap_ns now)
{
	if (w->sealed == neap_horizon)
		w->sealed = now - 1;
	while (w->count && leaves(w, entry(w, 0)) <= now) {
		seal(w, entry(w, 0)->at);
		w->used -= entry(w, 0)->cost;
		w->first = (w->first + 1) % w->size;
		w->count--;
	}
}

neap_ns neap_window_take(struct neap_window *w, int64_t cost, neap_ns now)
{
	neap_ns at = neap_window_when(w, cost, now);
	if (at > now || cost == 0)
		return at;
	forget(w, now);
	struct neap_stamp *last = w->count ? entry(w, w->count - 1) : NULL;
	if (last && last->at >= now)
		last->cost += cost;   /* same instant, or a clock that stepped back */
	else
		*entry(w, w->count++) = (struct neap_stamp){now, cost};
	w->used += cost;
	return at;
}

/* Enter what came at 'at', when the log has no entry of that instant, at the place 'i' where it
 * belongs. A full log has it leave later than it should: with the next one, or the last with it. */
static void enter(struct neap_window *w, uint32_t i, int64_t cost, neap_ns at)
{
	w->used += cost;
	if (w->count == w->size) {   /* never 0 */
		struct neap_stamp *s = entry(w, i < w->count ? i : i - 1);
		s->cost += cost;
		s->at = s->at > at ? s->at : at;
		return;
	}
	for (uint32_t n = w->count++; n > i; n--)
		*entry(w, n) = *entry(w, n - 1);
	*entry(w, i) = (struct neap_stamp){at, cost};
}

/* Let an entry be of so many tokens more, 2^59 at most, or fewer: how many are missing then. What
 * was all given back takes no room either. */
static int64_t amend(struct neap_window *w, uint32_t i, int64_t more)
{
	const int64_t most = INT64_C(1) << 59;
	struct neap_stamp *s = entry(w, i);
	int64_t was = s->cost, sum = more > most - was ? most : was + more;
	s->cost = sum > 0 ? sum : 0;
	w->used += s->cost - was;
	if (!s->cost)
		for (w->count--; i < w->count; i++)
			*entry(w, i) = *entry(w, i + 1);
	return sum < 0 ? sum : 0;
}

void neap_window_settle(struct neap_window *w, int64_t cost, int64_t used, neap_ns at, neap_ns now)
{
	const int64_t most = INT64_C(1) << 59;
	assert(cost >= 0 && used >= 0);
	used = used < most ? used : most;
	if (!cost)
		forget(w, now);
	uint32_t low = 0, high = w->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (entry(w, middle)->at < at)
			low = middle + 1;
		else
			high = middle;
	}
	int there = low < w->count && entry(w, low)->at == at;
	if (!there && !cost) {
		if (used && at > now - w->window_ns)
			enter(w, low, used, at);
		return;
	}
	for (int64_t more = used - cost; more && low < w->count && (there || at > w->sealed); there = 0)
		more = amend(w, low, more);
}

int64_t neap_window_available(const struct neap_window *w, neap_ns now)
{
	int64_t used = w->used;
	for (uint32_t i = 0; i < w->count && leaves(w, entry(w, i)) <= now; i++)
		used -= entry(w, i)->cost;
	return w->limit - used;
}

void neap_window_hold(struct neap_window *w, int64_t tokens, neap_ns until, neap_ns now)
{
	assert(tokens >= 0 && now >= 0);
	forget(w, now);
	neap_ns at = until > now ? until - w->window_ns : now;   /* what leaves then came then */
	int64_t missing = tokens < w->limit ? w->limit - tokens : 0;
	seal(w, at);
	uint32_t i = w->count;
	for (; i > 0 && missing > 0; i--) {
		struct neap_stamp *s = entry(w, i - 1);
		missing -= s->cost;
		if (until > now && s->at < at)
			s->at = at;
	}
	/* Enter what is missing. An entry of later than now is there in any case: what goes before it
	 * joins it, and so does not leave before it does. */
	if (missing < 0)
		missing = 0;
	for (i = 0; i < w->count && entry(w, i)->at <= at; i++)
		;
	struct neap_stamp *before = i > 0 ? entry(w, i - 1) : NULL;
	if (before && before->at == at) {
		before->cost += missing;
		w->used += missing;
	} else if (missing || (at > now && i == w->count)) {
		enter(w, i, missing, at);
	}
}

int neap_window_change(struct neap_window *w, int64_t limit, neap_ns window_ns,
		       struct neap_stamp *log, uint32_t size, neap_ns now)
{
	struct neap_window fresh, old = *w;
	forget(&old, now);
	if (neap_window_init(&fresh, limit, window_ns, log, size) || old.count > size ||
	    (log == old.log && size != old.size))
		return NEAP_ERANGE;
	fresh.used = old.used;
	fresh.sealed = old.sealed;
	fresh.count = old.count;
	if (log == old.log)
		fresh.first = old.first;
	else
		for (uint32_t i = 0; i < old.count; i++)
			log[i] = *entry(&old, i);
	*w = fresh;
	return NEAP_OK;
}
