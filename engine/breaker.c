/* SPDX-License-Identifier: MIT */
/* breaker.c - a circuit breaker: leave a server alone that fails, then see whether it is back.
 *
 * A limit on failures, not on calls. Closed, it lets everybody through and counts how calls end.
 * When its rule is met it opens, and nobody goes until the cooldown is over. Then it is half-open:
 * a few trials at a time go, and how they end says what comes next.
 *
 *              rule met at a failure                cooldown over, by time alone
 *     CLOSED -----------------------------> OPEN ------------------------------> HALF-OPEN
 *        ^                                   ^                                    |     |
 *        |                                   '---------- a trial fails -----------'     |
 *        '------------------------------ 'required' trials succeed ---------------------'
 *
 * Half-open is an instant, not an event: nobody needs to call for it to begin. So one flag and one
 * instant, 'ends', are the state; asking stays const, and who waits is told exactly when.
 *
 * Outcomes are late by nature: a call that began before the outage may end in the middle of it. So
 * they carry the instant of their grant, and one from before the present state began says nothing
 * about it: it neither closes nor reopens nor frees a place. In half-open it must find a trial out,
 * too. While it is open nothing counts. An instant tells less than a serial number where a state
 * begins at the very instant of a grant (a cooldown of 0, a clock that stands): then the outcome
 * counts, or a clock that stands would never open it. But as many as trials were still out, of that
 * instant, when half-open ended are taken for theirs ('late'), and dropped. So an old call passes
 * for a new one only if it was let out while closed, and that opened, and became half-open, and let
 * a trial out, all at that instant.
 *
 * A trial that nobody reports must not hold its place for ever. When all places are taken and for
 * 'patience_ns' nobody was let out, the eldest is presumed lost: another goes in its place. Should
 * it report after all, it does not free the place a second time ('lost' counts those). So there
 * are never more than 'trials' out, besides those that were presumed lost.
 *
 * What has to be remembered depends on the rule, and is the caller's memory:
 *     ROW            nothing: a count, which a success sets to 0
 *     WITHIN         the instants of the last failures; the one that fills the ring opens it
 *     RATIO          a bit for each of the last calls
 *     RATIO_WITHIN   calls and failures by slices of time. A slice begins with a call, takes in
 *                    what comes within period / slices of it, and leaves a period after its
 *                    beginning: so rare calls are counted exactly, and many of them leave
 *                    together, up to one slice early, never late
 *
 * Invariants, after every call:
 *   0 <= out <= trials; out, lost and succeeded are 0 unless half-open
 *   seen and failed are what the memory holds; closed, the rule is not met
 */
#include "neap.h"

#include <assert.h>

enum { ENTRIES_MOST = 1 << 24 };

static neap_ns later(neap_ns a, neap_ns b) { return a > b ? a : b; }

/* An instant after another, as far as time goes. */
static neap_ns after(neap_ns at, neap_ns by)
{
	return by < neap_horizon - at ? at + by : neap_horizon;
}

/* ---- what a closed breaker remembers ---- */

static int is_entries(int32_t n) { return n >= 1 && n <= ENTRIES_MOST; }

int64_t neap_trip_words(const struct neap_trip *t)
{
	int counts = t->rule == NEAP_TRIP_ROW || t->rule == NEAP_TRIP_WITHIN;
	int timed = t->rule == NEAP_TRIP_WITHIN || t->rule == NEAP_TRIP_RATIO_WITHIN;
	if (counts ? t->failures < 1 : t->least < 1 || !(t->ratio >= 0 && t->ratio <= 1))
		return NEAP_ERANGE;
	if (timed && (t->period_ns < 1 || t->period_ns > neap_horizon))
		return NEAP_ERANGE;
	switch (t->rule) {
	case NEAP_TRIP_ROW: return 0;
	case NEAP_TRIP_WITHIN: return is_entries(t->failures) ? t->failures : NEAP_ERANGE;
	case NEAP_TRIP_RATIO:
		return is_entries(t->calls) && t->least <= t->calls ? (t->calls + 63) / 64
								    : NEAP_ERANGE;
	case NEAP_TRIP_RATIO_WITHIN:
		return is_entries(t->slices) ? 3 * (int64_t)t->slices : NEAP_ERANGE;
	}
	return NEAP_ERANGE;
}

static void forget(struct neap_breaker *b)
{
	b->first = b->count = 0;
	b->seen = b->failed = 0;
}

static int has_slices(const struct neap_breaker *b)
{
	return b->trip.rule == NEAP_TRIP_RATIO_WITHIN;
}

static uint32_t room(const struct neap_breaker *b)
{
	return (uint32_t)(has_slices(b) ? b->trip.slices : b->trip.failures);
}

/* The i-th entry that is there: an instant; or three words of a slice, its instant first. */
static int64_t *entry(const struct neap_breaker *b, uint32_t i)
{
	return &b->memory[((uint64_t)b->first + i) % room(b) * (has_slices(b) ? 3 : 1)];
}

/* Take off what has left by 'now'. The memory itself stays, so a copy of *b can do it, too. */
static void expire(struct neap_breaker *b, neap_ns now)
{
	if (b->trip.rule != NEAP_TRIP_WITHIN && !has_slices(b))
		return;
	for (const int64_t *e; b->count && *(e = entry(b, 0)) + b->trip.period_ns <= now;) {
		b->seen -= has_slices(b) ? e[1] : 1;
		b->failed -= has_slices(b) ? e[2] : 1;
		b->first = (b->first + 1) % room(b);
		b->count--;
	}
}

static void note_bit(struct neap_breaker *b, int failed)
{
	int64_t *word = &b->memory[b->first / 64];
	uint64_t bit = UINT64_C(1) << b->first % 64, bits = (uint64_t)*word;
	if (b->count == (uint32_t)b->trip.calls)
		b->failed -= (bits & bit) != 0;
	else
		b->count++;
	*word = (int64_t)(failed ? bits | bit : bits & ~bit);
	b->first = (b->first + 1) % (uint32_t)b->trip.calls;
	b->seen = b->count;
	b->failed += failed;
}

static void note_slice(struct neap_breaker *b, int failed, neap_ns now)
{
	neap_ns slice_ns = (b->trip.period_ns - 1) / b->trip.slices + 1;
	if (!b->count || now - entry(b, b->count - 1)[0] >= slice_ns) {
		int64_t *fresh = entry(b, b->count++);
		fresh[0] = now;
		fresh[1] = fresh[2] = 0;
	}
	int64_t *last = entry(b, b->count - 1);
	last[1]++;
	last[2] += failed;
	b->seen++;
	b->failed += failed;
}

static void note(struct neap_breaker *b, int failed, neap_ns now)
{
	expire(b, now);
	switch (b->trip.rule) {
	case NEAP_TRIP_ROW:
		b->failed = failed ? b->failed + 1 : 0;
		break;
	case NEAP_TRIP_WITHIN:
		if (!failed)
			break;
		*entry(b, b->count++) = now;
		b->seen = b->failed = b->count;
		break;
	case NEAP_TRIP_RATIO:
		note_bit(b, failed);
		break;
	case NEAP_TRIP_RATIO_WITHIN:
		note_slice(b, failed, now);
	}
}

/* A quotient of whole numbers is rounded as a number that is written down is, so 7 of 100 meet
 * 0.07; the product 0.07 * 100 is more than 7. */
static int is_met(const struct neap_breaker *b)
{
	if (b->trip.rule == NEAP_TRIP_ROW || b->trip.rule == NEAP_TRIP_WITHIN)
		return b->failed >= b->trip.failures;
	return b->seen >= b->trip.least && (double)b->failed / (double)b->seen >= b->trip.ratio;
}

int64_t neap_breaker_failures(const struct neap_breaker *b, neap_ns now)
{
	struct neap_breaker then = *b;
	expire(&then, now);
	return then.failed;
}

/* ---- states ---- */

int neap_breaker_init(struct neap_breaker *b, const struct neap_trip *trip, int64_t *memory,
		      neap_ns cooldown_ns, int32_t trials, int32_t required)
{
	int64_t words = neap_trip_words(trip);
	if (words < 0 || (words && !memory) || cooldown_ns < 0 || cooldown_ns > neap_horizon ||
	    trials < 1 || required < 1 || required > trials)
		return NEAP_ERANGE;
	*b = (struct neap_breaker){
		.trip = *trip, .memory = memory, .cooldown_ns = cooldown_ns, .trials = trials,
		.required = required, .sheds = 1, .let_out = -1,
		.patience_ns = cooldown_ns ? cooldown_ns : 1000000000,
	};
	return NEAP_OK;
}

int neap_breaker_state(const struct neap_breaker *b, neap_ns now)
{
	if (!b->open)
		return NEAP_BREAKER_CLOSED;
	return now < b->ends ? NEAP_BREAKER_OPEN : NEAP_BREAKER_HALF_OPEN;
}

neap_ns neap_breaker_since(const struct neap_breaker *b, neap_ns now)
{
	return neap_breaker_state(b, now) == NEAP_BREAKER_HALF_OPEN ? b->ends : b->since;
}

/* Half-open began by itself, so it is counted when it is over. */
static void leave(struct neap_breaker *b, neap_ns now)
{
	b->changes += neap_breaker_state(b, now) == NEAP_BREAKER_HALF_OPEN ? 2 : 1;
	b->since = now;
	b->late = b->let_out == now ? b->out + b->lost : 0;
	b->let_out = -1;
	b->out = b->lost = b->succeeded = 0;
}

void neap_breaker_open(struct neap_breaker *b, neap_ns until, neap_ns now)
{
	if (neap_breaker_state(b, now) != NEAP_BREAKER_OPEN) {
		leave(b, now);
		b->open = 1;
	}
	b->ends = until < neap_horizon ? later(until, now) : neap_horizon;
}

void neap_breaker_close(struct neap_breaker *b, neap_ns now)
{
	if (!b->open)
		return;
	leave(b, now);
	b->open = 0;
	forget(b);
}

void neap_breaker_reset(struct neap_breaker *b, neap_ns now)
{
	neap_breaker_close(b, now);
	b->late = b->since == now ? b->late : 0;
	b->since = now;
	forget(b);
}

neap_ns neap_breaker_when(const struct neap_breaker *b, neap_ns now)
{
	if (!b->open)
		return now;
	if (now < b->ends)
		return b->ends < neap_horizon ? b->ends : neap_on_give;
	return b->out < b->trials ? now : later(now, after(b->let_out, b->patience_ns));
}

neap_ns neap_breaker_take(struct neap_breaker *b, neap_ns now)
{
	neap_ns at = neap_breaker_when(b, now);
	if (at > now || !b->open)
		return at;
	if (b->out < b->trials)
		b->out++;
	else
		b->lost++;
	b->let_out = later(now, b->let_out);
	return at;
}

/* A trial of instant 'at' is over. The ones let out last are not those presumed lost. */
static void come_back(struct neap_breaker *b, neap_ns at)
{
	if (b->lost && (at < b->let_out || !b->out))
		b->lost--;
	else
		b->out--;
}

void neap_breaker_give(struct neap_breaker *b, int outcome, neap_ns at, neap_ns now)
{
	assert(outcome >= NEAP_SUCCESS && outcome <= NEAP_IGNORE && now >= 0);
	if (at < neap_breaker_since(b, now))
		return;
	if (at == b->since && b->late) {
		b->late--;
		return;
	}
	if (b->open) {
		if (!b->out && !b->lost)
			return;   /* no trial; all of the time while it is not half-open */
		come_back(b, at);
		if (outcome == NEAP_SUCCESS && ++b->succeeded == b->required)
			neap_breaker_close(b, now);
	} else if (outcome != NEAP_IGNORE) {
		note(b, outcome == NEAP_FAILURE, now);
	}
	if (outcome == NEAP_FAILURE && (b->open || is_met(b)))
		neap_breaker_open(b, after(now, b->cooldown_ns), now);
}
