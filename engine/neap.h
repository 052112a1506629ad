/* SPDX-License-Identifier: MIT */
/* neap.h - the engine's whole public face.
 *
 * Time    neap_ns: nanoseconds of one monotonic clock, signed, so differences need no care.
 *         Instants are nouns (now, at, due, deadline); durations end in _ns. Rings 0 and 1 never
 *         read a clock: 'now' is a parameter, in [0, neap_horizon); not the Unix epoch's clock.
 * Memory  structs shown here are the caller's and hold no hidden allocation; a limiter may lie on
 *         the heap, in a static or in shared memory. Zeroed is not ready: call _init. Opaque
 *         ones come from _open and go to _close, and allocate only where it says so.
 * Errors  0 or more, or a negative NEAP_E*; outputs are written on success only. "Not yet" is an
 *         answer, not an error. Misuse (a cost below 0, a NULL) is caught by assert.
 * Threads gcra, semaphore and pause are single words touched atomically: any number of threads or
 *         processes may use one, or several as one. Takes are what they would be one after another:
 *         nobody is admitted beyond a limit, and a refused take leaves no trace, not even for a
 *         moment. So may any limiter in a segment. Everything else belongs to one thread at a time.
 *         Not from signal handlers.
 *
 * The text between the cut marks is what Lua is given, byte for byte: no preprocessor there, and
 * no number that needs 64 bits.
 */
#ifndef NEAP_H
#define NEAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
/* ---- cut ---- */
typedef int64_t neap_ns;

enum {
	NEAP_OK = 0,
	NEAP_ERANGE = -1,   /* a number outside its documented range */
	NEAP_ENOMEM = -2,   /* the allocator said no; nothing changed */
	NEAP_EFULL = -3,    /* a stated bound is reached; nothing changed */
	NEAP_ESYS = -4,     /* the operating system refused; errno says why */
	NEAP_ECORRUPT = -5, /* an invariant does not hold (only from _check) */
	NEAP_EFOREIGN = -6, /* a file that is no segment, or not one for us */
};

extern const char neap_version[];      /* "0.1.0" */
extern const neap_ns neap_never;       /* no instant: waiting is vain */
extern const neap_ns neap_on_give;     /* no instant known: when somebody gives a permit back */
extern const neap_ns neap_horizon;     /* 2^60 ns (36 years): beyond every clock */

/* ==== ring 0: gcra, a rate ============================================================== */

/* A rate remembered as one word. Read the fields, write through the functions. */
struct neap_gcra {
	int64_t tat;        /* theoretical arrival time, in units; one token is 2^shift units. A sign
			     * bit says that a take of several is at it, and is no part of it */
	int64_t burst;      /* units, below 2^60: how far tat may run ahead of the clock */
	uint64_t speed[2];  /* units per ns, 4.124 fixed point, low word first */
	uint64_t pace[2];   /* ns per unit, fixed point with 64 + pace_shift fraction bits */
	neap_ns held;       /* until then nothing flows in, and the clock stands; 0: it does not */
	int64_t stands;     /* there, in units */
	uint8_t shift;
	uint8_t pace_shift;
	uint8_t robust;     /* 1: whoever takes may be killed; see neap_limiter_share */
};

/* Allow 'amount' tokens per 'period_ns', at most 'burst' at once, starting full. All three from
 * 1; amount / period_ns up to 6 tokens per ns; burst and amount below 2^59. NEAP_ERANGE
 * otherwise, and *g is untouched. Source: ITU-T I.371, virtual scheduling form. */
int neap_gcra_init(struct neap_gcra *g, int64_t amount, neap_ns period_ns, int64_t burst);

/* The first instant at which 'cost' (>= 0 tokens) conforms: up to 'now' means go, later means
 * wait until then, neap_never means cost > burst. */
neap_ns neap_gcra_when(const struct neap_gcra *g, int64_t cost, neap_ns now);

/* Spend 'cost' if it conforms at 'now'. Answers as _when; up to 'now' means spent. */
neap_ns neap_gcra_take(struct neap_gcra *g, int64_t cost, neap_ns now);

/* Charge 'used' instead of the 'cost' that was spent before: gives back, or borrows from the
 * future, which later takes then wait for. A debt of more than 2^62 units or so, years to pay, may
 * pass the end of the number line. It is not forgiven: nobody goes until _fill or _change. */
void neap_gcra_settle(struct neap_gcra *g, int64_t cost, int64_t used, neap_ns now);

/* Whole tokens that could be taken at 'now'; below 0 after borrowing. */
int64_t neap_gcra_available(const struct neap_gcra *g, neap_ns now);

/* Set what is available at 'now': 0 empties, burst fills. 'tokens' in [0, burst] or clamped. */
void neap_gcra_fill(struct neap_gcra *g, int64_t tokens, neap_ns now);
/* As one that is full again at 'at', an instant as _when answers it for the whole burst: so what is
 * left of one limit goes over to another of the same rate. Holds nothing. */
void neap_gcra_full_at(struct neap_gcra *g, neap_ns at);

/* Until 'until' at most 'tokens' (>= 0) go, or as many as there are at 'now'. Nothing flows in
 * meanwhile; at 'until' all of that is there at once, up to the burst. Again while it is held: as if
 * it had not been, so what flowed in since is there, up to 'tokens'. An 'until' up to 'now'
 * takes what is above 'tokens', and holds no more. Not while another thread takes. */
void neap_gcra_hold(struct neap_gcra *g, int64_t tokens, neap_ns until, neap_ns now);

/* Another rate in place. It keeps what was spent and has not flowed back; what it holds; how full
 * it is; or nothing, and is as new. To the fraction of a token, up to the new burst. What was
 * borrowed stays owed; by ratio it grows and shrinks with the burst. Ranges and errors as _init.
 * Not while another thread takes. */
enum { NEAP_KEEP_SPENT = 0, NEAP_KEEP_HELD = 1, NEAP_KEEP_RATIO = 2, NEAP_KEEP_NOTHING = 3 };
int neap_gcra_change(struct neap_gcra *g, int64_t amount, neap_ns period_ns, int64_t burst,
		     int keep, neap_ns now);

/* ==== ring 0: semaphore, permits in flight ============================================== */

struct neap_semaphore {
	int64_t in_use;     /* permits out; above limit after an overdraw or a lowered limit. A sign
			     * bit says that a take of several is at it, and is no part of it */
	int64_t limit;      /* permits, >= 1 */
	int32_t overdraw;   /* 1: any cost goes while in_use <= limit; 0: only what fits */
	int32_t robust;     /* 1: whoever takes may be killed; see neap_limiter_share */
};

/* 'limit' from 1 to 2^59; 'overdraw' 0 or 1. NEAP_ERANGE otherwise. */
int neap_semaphore_init(struct neap_semaphore *s, int64_t limit, int overdraw);
/* 'now', neap_on_give, or neap_never for a cost above the limit (not with overdraw). */
neap_ns neap_semaphore_when(const struct neap_semaphore *s, int64_t cost, neap_ns now);
neap_ns neap_semaphore_take(struct neap_semaphore *s, int64_t cost, neap_ns now);
/* Return 'cost' permits. More than are out is misuse; without asserts in_use stops at 0. (When a
 * settle says that 2^61 or more are out it counts no more: nobody goes until _init.) */
void neap_semaphore_give(struct neap_semaphore *s, int64_t cost);

/* ==== ring 0: window, an exact sliding log ============================================== */

struct neap_stamp { neap_ns at; int64_t cost; };

/* At most 'limit' tokens in any half-open span of window_ns: a grant leaves exactly one window
 * after it came. The log is the caller's and is the bound: when all 'size' entries are in the
 * window the next grant waits for the oldest to leave, so 'limit' entries always suffice (grants
 * of one instant share an entry). One owner at a time. */
struct neap_window {
	struct neap_stamp *log;   /* ring of 'size' entries, oldest at 'first' */
	int64_t limit;            /* tokens */
	neap_ns window_ns;
	int64_t used;             /* tokens in the log, left ones included until noticed */
	neap_ns sealed;           /* what came up to then and is in no entry is not to be changed;
				   * neap_horizon: nothing has come yet */
	uint32_t size, first, count;
};

/* limit 1 to 2^59, window_ns from 1, size from 1. NEAP_ERANGE otherwise. */
int neap_window_init(struct neap_window *w, int64_t limit, neap_ns window_ns,
		     struct neap_stamp *log, uint32_t size);
neap_ns neap_window_when(const struct neap_window *w, int64_t cost, neap_ns now);
neap_ns neap_window_take(struct neap_window *w, int64_t cost, neap_ns now);
/* Change what was spent at instant 'at' from 'cost' to 'used', if it is still in the window; there
 * where a clock that was late had it enter. From 0, of which the log knows nothing, it enters 'used'
 * where it belongs. */
void neap_window_settle(struct neap_window *w, int64_t cost, int64_t used, neap_ns at, neap_ns now);
int64_t neap_window_available(const struct neap_window *w, neap_ns now);
/* Until 'until' at most 'tokens' (>= 0) go, or as many as there are. As much of what was granted
 * as that takes stays in the window until then; what of it is missing is entered as granted. What
 * was to stay longer does. */
void neap_window_hold(struct neap_window *w, int64_t tokens, neap_ns until, neap_ns now);
/* Another limit and window in place, and another log of 'size' entries, into which those move that
 * are still in the old window; the log it has, with its size, stays. What has left is forgotten, so
 * a longer window is exact from then on only. NEAP_ERANGE as _init, or when they do not fit into
 * the log; *w is then untouched. */
int neap_window_change(struct neap_window *w, int64_t limit, neap_ns window_ns,
		       struct neap_stamp *log, uint32_t size, neap_ns now);

/* ==== ring 0: pause, nobody before an instant =========================================== */

struct neap_pause { neap_ns ends; };   /* the instant; 0 when none was set */

void neap_pause_init(struct neap_pause *p);
neap_ns neap_pause_when(const struct neap_pause *p, neap_ns now);
/* Pause until 'until', never shortening a longer pause. Answers the pause in force. */
neap_ns neap_pause_extend(struct neap_pause *p, neap_ns until);
void neap_pause_clear(struct neap_pause *p);

/* ==== ring 0: breaker, leave alone what fails =========================================== */

/* What opens a closed breaker. It is judged when a failure comes, that one included. */
enum {
	NEAP_TRIP_ROW = 1,        /* 'failures' of them, and no success between */
	NEAP_TRIP_WITHIN,         /* 'failures' of them within period_ns */
	NEAP_TRIP_RATIO,          /* a 'ratio' of the last 'calls', once 'least' of them came */
	NEAP_TRIP_RATIO_WITHIN,   /* a 'ratio' of those within period_ns, if there are 'least' */
};

struct neap_trip {
	int32_t rule;
	int32_t failures;     /* 1 and more; _WITHIN: to 2^24 */
	int32_t calls;        /* 1 to 2^24 */
	int32_t least;        /* 1 and more; _RATIO: to 'calls' */
	int32_t slices;       /* _RATIO_WITHIN: 1 to 2^24; outcomes leave up to a slice early */
	neap_ns period_ns;    /* from 1; what came leaves, and counts no more, one period after */
	double ratio;         /* failures to calls, 0 to 1, inclusive */
};

/* The memory that a rule needs, in words of 8 bytes: _WITHIN 'failures', _RATIO a bit per call,
 * _RATIO_WITHIN 3 'slices'. NEAP_ERANGE: there is no such rule. */
int64_t neap_trip_words(const struct neap_trip *trip);

enum { NEAP_BREAKER_CLOSED, NEAP_BREAKER_OPEN, NEAP_BREAKER_HALF_OPEN };

/* A circuit breaker (M. Nygard, Release It!). Open, nobody goes until the cooldown is over; then
 * it is half-open, by time alone: at most 'trials' go at once, 'required' successes close it, and
 * one failure opens it for a full cooldown. One owner at a time. */
struct neap_breaker {
	struct neap_trip trip;
	int64_t *memory;        /* the caller's, neap_trip_words of it */
	neap_ns cooldown_ns;    /* may be written */
	neap_ns patience_ns;    /* may be written: when all trials are out and for so long none was let
				 * out, another is. The cooldown unless told; 1 s if that is 0 */
	int32_t trials, required;
	int32_t sheds;          /* may be written. 1: nobody waits in line for it; 0: they do */
	int32_t open;           /* 0: closed; 1: open, and from 'ends' on half-open */
	neap_ns since;          /* when it closed or opened; 0: it was made so */
	neap_ns ends;           /* neap_horizon: until told otherwise */
	neap_ns let_out;        /* the last trial; -1: none since it opened */
	int32_t out;            /* trials in flight */
	int32_t lost;           /* others that were not heard of, and presumed lost */
	int32_t succeeded;      /* trials */
	int32_t late;           /* trials of instant 'since' that were out when half-open ended */
	uint32_t first, count;  /* entries in memory */
	int64_t seen, failed;   /* calls and failures that count */
	int64_t changes;        /* of state, ever, but for the one to half-open while it is that */
};

/* Closed. cooldown_ns from 0, trials from 1, required from 1 to trials. NEAP_ERANGE otherwise, or
 * for a rule that does not exist or has no memory. */
int neap_breaker_init(struct neap_breaker *b, const struct neap_trip *trip, int64_t *memory,
		      neap_ns cooldown_ns, int32_t trials, int32_t required);
/* 'now', or the instant at which a call could go; neap_on_give: it is open until told otherwise.
 * _take answers the same and lets a call out. It has no cost: a call is a call. */
neap_ns neap_breaker_when(const struct neap_breaker *b, neap_ns now);
neap_ns neap_breaker_take(struct neap_breaker *b, neap_ns now);
/* How a call ended that was let out at 'at'. NEAP_IGNORE says nothing and frees the place of a
 * trial. Calls from before the present state began, and all while it is open, count for nothing. */
void neap_breaker_give(struct neap_breaker *b, int outcome, neap_ns at, neap_ns now);
int neap_breaker_state(const struct neap_breaker *b, neap_ns now);
neap_ns neap_breaker_since(const struct neap_breaker *b, neap_ns now);   /* it is in that state */
/* Failures that count at 'now'. Closing forgets them. */
int64_t neap_breaker_failures(const struct neap_breaker *b, neap_ns now);
/* By hand: open until an instant (neap_never: until told otherwise); close, and forget all failures
 * if it was not; close and forget in any case, outcomes of calls that are out included. */
void neap_breaker_open(struct neap_breaker *b, neap_ns until, neap_ns now);
void neap_breaker_close(struct neap_breaker *b, neap_ns now);
void neap_breaker_reset(struct neap_breaker *b, neap_ns now);
/* ==== ring 0: adaptive, permits under a limit that is found out ========================= */

enum { NEAP_AIMD = 1, NEAP_VEGAS, NEAP_GRADIENT, NEAP_STEERED };

/* Options of a strategy, to be added up. */
enum {
	NEAP_ONE_CUT = 1,         /* a failure of a call granted before the last cut does not cut
				   * again, nor does a success lower what was lowered since */
	NEAP_GROW_WHEN_USED = 2,  /* it grows only when a take has reached it since it last moved and
				   * since the call that succeeded was granted */
	NEAP_LOG10 = 4,           /* VEGAS: alpha, beta, threshold and increase are times the whole
				   * part of log10(limit), or 1 if that is 0 */
	NEAP_ROUND_UP = 8,        /* VEGAS: the queue is rounded up, not down */
	NEAP_BEST_HOLDS = 16,     /* VEGAS: a call faster than all before does not move the limit */
};

/* How a limit moves. 'rtt' is from a call's grant to its end, 1 ns and more. */
struct neap_strategy {
	int32_t kind;
	uint32_t options;
	int64_t increase;     /* permits that AIMD and VEGAS add for a success; 0 counts as 1 */
	double decrease;      /* a failure leaves this share, rounded down; 0 to 1, or clamped */
	double smoothing;     /* a success moves the limit this share of the way; above 0, to 1 */
	int64_t use;          /* 0, or a success moves nothing while in_use * use is below limit */
	neap_ns slow_ns;      /* a success with a longer rtt counts as a failure; 0: none does */
	/* VEGAS: queue = limit * (rtt - best) / rtt, in permits */
	int64_t alpha, beta;  /* below alpha it grows, above beta it shrinks; beta >= alpha */
	int64_t threshold;    /* up to here it grows by beta; -1: nowhere */
	double shrink;        /* the share that is left when it shrinks; 0: 'increase' goes */
	neap_ns memory_ns;    /* 'best' is forgotten after so long, or half of it; 0: never */
	/* GRADIENT: limit * tolerance * (mean rtt) / rtt, the factor from 0.5 to 1, + queue */
	double tolerance;
	int64_t queue;
	int32_t window;       /* successes in the mean: exponential, but plain over the first 10 */
};

/* The published numbers: increase 1, decrease 0.5, alpha 3, beta 6, memory 30 s, tolerance 1.5,
 * queue 4, window 600; use 1 (AIMD), 0 (VEGAS), 2 and smoothing 0.2 (GRADIENT); all else is off.
 * NEAP_ERANGE: there is no such kind. */
int neap_strategy_init(struct neap_strategy *s, int kind);

/* A semaphore whose limit moves between floor and ceiling as calls end well or badly. What counts
 * as in use is what the ending call finds, itself included; a limit is reached, too, when another
 * call of the same cost would not fit. Lowering the limit takes no permit back. One owner at a
 * time. Sources: see adaptive.c. */
struct neap_adaptive {
	struct neap_strategy strategy;   /* its numbers may be written, within their ranges */
	int64_t floor, ceiling;
	int64_t limit;        /* permits */
	double fraction;      /* the estimate is limit + fraction, below 1 */
	int64_t in_use;       /* permits out */
	neap_ns full_at;      /* a take last reached the limit; -1: none since it moved */
	neap_ns cut_at;       /* a failure last cut it; -1: none did */
	neap_ns lowered_at;   /* anything lowered it; -1: nothing did */
	neap_ns best[2];      /* VEGAS: least rtt in the half memory_ns before, and in this */
	neap_ns half_since;   /* when this one began; -1: no sample yet */
	double mean;          /* GRADIENT, ns */
	int32_t samples;      /* in it, to 10 */
	int64_t changes;      /* of the limit, ever, and the last: */
	neap_ns changed_at;
};

/* Up to 2^59 each: floor at least 1, ceiling at least floor, initial between them, or they are
 * clamped. NEAP_ERANGE, *a untouched: above 2^59, or a number of the strategy is out of range. */
int neap_adaptive_init(struct neap_adaptive *a, const struct neap_strategy *s, int64_t floor,
		       int64_t ceiling, int64_t initial);
/* 'now', neap_on_give, or neap_never for a cost above the ceiling. A cost above the limit, up to
 * the ceiling, goes when nobody else is out. */
neap_ns neap_adaptive_when(const struct neap_adaptive *a, int64_t cost, neap_ns now);
neap_ns neap_adaptive_take(struct neap_adaptive *a, int64_t cost, neap_ns now);
/* A call that was granted 'cost' at 'at' has ended. NEAP_IGNORE moves nothing. More than are out is
 * misuse; in_use stops at 0. */
void neap_adaptive_give(struct neap_adaptive *a, int64_t cost, int outcome, neap_ns at,
			neap_ns now);
/* It holds 'used' permits instead of 'cost'. in_use may pass the limit, up to 2^60. */
void neap_adaptive_settle(struct neap_adaptive *a, int64_t cost, int64_t used);
/* Other bounds, as for _init; the limit is clamped into them. */
int neap_adaptive_bounds(struct neap_adaptive *a, int64_t floor, int64_t ceiling, neap_ns now);
/* Another limit, or the nearest bound. */
void neap_adaptive_move(struct neap_adaptive *a, int64_t limit, neap_ns now);

/* ==== ring 0: backoff, how long before the next attempt ================================= */

enum { NEAP_CONSTANT = 1, NEAP_LINEAR, NEAP_EXPONENTIAL };
enum { NEAP_NO_JITTER, NEAP_SPREAD, NEAP_DECORRELATED };

/* A policy: the caller fills it in, and it is only read. Attempts count from 0; the curve is 'base'
 * there, and grows by 'step', or times 'factor', with each. Jitter SPREAD is even from 'low' to
 * 'high' times the delay: full jitter is 0 to 1, equal 0.5 to 1. DECORRELATED has no curve: it is
 * even from the base to three times the delay before. No delay is above the cap, and jitter is
 * spread also there: see backoff.c. */
struct neap_backoff {
	int32_t curve, jitter;
	neap_ns base_ns;      /* this, step and cap: 0 to neap_horizon */
	neap_ns step_ns;      /* LINEAR */
	neap_ns cap_ns;       /* may be below the base; neap_horizon: there is none */
	neap_ns grid_ns;      /* from 1: delays are its multiples, half of it rounded up, or the cap */
	double factor;        /* EXPONENTIAL: 0 to 1e9 */
	double low, high;     /* SPREAD: 0 to 1e9 */
};

/* NEAP_ERANGE: a number outside its range. Other functions want a policy that this accepts. */
int neap_backoff_check(const struct neap_backoff *b);
/* The delay after attempt number 'attempt' (>= 0) as the curve and the cap have it, without jitter.
 * The power n is right to n * 2^-53 of it. */
neap_ns neap_backoff_curve(const struct neap_backoff *b, int64_t attempt);
/* With jitter and on the grid: 'unit' is a draw from 0 to 1. 'previous' is the delay before this
 * one; 0 if it is not known or there was none, then DECORRELATED draws from all that could come. */
neap_ns neap_backoff_delay(const struct neap_backoff *b, int64_t attempt, neap_ns previous,
			   double unit);

/* A generator: any word is a seed, and one seed is one sequence. Not for secrets. */
struct neap_random { uint64_t state; };
uint64_t neap_random_next(struct neap_random *r);
double neap_random_unit(struct neap_random *r);   /* from 0, below 1 */

/* ==== ring 0: budget, attempts besides the first ======================================== */

enum { NEAP_TOKENS = 1, NEAP_SHARE };
enum { NEAP_SLICES = 17 };

/* Shared by all calls that may be repeated or hedged. One owner at a time. */
struct neap_budget {
	int32_t rule;
	int64_t tokens, most;   /* TOKENS, in thousandths; begins full */
	int64_t above;          /* TOKENS: only while there are more than this */
	double share;           /* SHARE: extra attempts for each first call */
	int64_t least;          /* SHARE: and this many in any case */
	neap_ns slice_ns;       /* SHARE: a 16th of the period */
	int64_t newest;         /* the slice that it is in, of all since the clock's 0 */
	int64_t calls[NEAP_SLICES], extras[NEAP_SLICES];
};

/* most and above in thousandths, above from 0 to most, up to 2^50. NEAP_ERANGE otherwise. */
int neap_budget_tokens(struct neap_budget *b, int64_t most, int64_t above);
/* In any period_ns (from 1, rounded up to a multiple of 16) at most 'share' (0 to 1e6) times the
 * first calls, plus 'least' (0 to 2^50). NEAP_ERANGE otherwise. It may refuse what a 16th of the
 * period later it would not. */
int neap_budget_share(struct neap_budget *b, double share, int64_t least, neap_ns period_ns);
/* A first call begins. */
void neap_budget_call(struct neap_budget *b, neap_ns now);
/* 1: another attempt may begin, and is paid for; 0: not. 'cost' in thousandths, for TOKENS. */
int neap_budget_take(struct neap_budget *b, int64_t cost, neap_ns now);
/* TOKENS: more, up to most, or fewer, down to 0; up to 2^50 thousandths. */
void neap_budget_add(struct neap_budget *b, int64_t amount);
/* Thousandths of tokens; or attempts. */
int64_t neap_budget_left(struct neap_budget *b, neap_ns now);

/* ==== ring 0: limiter, the tagged union and all-of ====================================== */

enum {
	NEAP_GCRA = 1, NEAP_SEMAPHORE, NEAP_WINDOW, NEAP_PAUSE, NEAP_BREAKER, NEAP_ADAPTIVE,
	NEAP_KEYED, NEAP_CONDITIONAL,
};
enum { NEAP_SUCCESS = 0, NEAP_FAILURE = 1, NEAP_IGNORE = 2 };   /* how a permit came back */
enum { NEAP_COSTS = 8, NEAP_KEYS = 4, NEAP_TERMS = 64 };        /* per request; per all-of */

struct neap_keyed;
struct neap_stats;
struct neap_limiter;

/* Another multiple of a limiter while a pause is on: a slot that is only needed then, or a cost that
 * counts 20 times. Nothing of it is its own: the limiter and the pauses are the caller's, outlive
 * it, and may stand in terms of their own, the limiter in another all; but who asks it there, plainly,
 * is in another line. When a pause begins or ends while a request is asked, by another thread, the
 * request goes by what it saw. */
struct neap_conditional {
	struct neap_limiter *of;             /* not keyed, nor conditional */
	const struct neap_pause *pause[2];   /* it holds while one of them is on; [1] may be NULL */
	int64_t on, off;                     /* times the term's multiplier, while it holds and while
					      * it does not: off from 0, on from off to 2^31 - 1; 0:
					      * it is not asked */
};

struct neap_limiter {
	int32_t kind;
	uint32_t shared;            /* 0, but in a segment: how far it is into it, in 64 bytes */
	union {
		int64_t word;               /* the first of a gcra and of a semaphore */
		struct neap_gcra gcra;
		struct neap_semaphore semaphore;
		struct neap_window window;
		struct neap_pause pause;
		struct neap_breaker breaker;
		struct neap_adaptive adaptive;
		struct neap_keyed *keyed;   /* this and the next in terms of requests to an engine */
		struct neap_conditional conditional;
	} as;
};

/* The verbs, for any kind but the last two, which an engine alone can ask. _when and _take as above.
 * _give returns permits that were taken at instant 'at' with an outcome
 * (NEAP_SUCCESS..NEAP_IGNORE); what time gives back by itself is not given. _settle changes
 * 'cost', spent at instant 'at', into 'used'; with used 0 it undoes the take. */
neap_ns neap_limiter_when(const struct neap_limiter *l, int64_t cost, neap_ns now);
neap_ns neap_limiter_take(struct neap_limiter *l, int64_t cost, neap_ns now);
void neap_limiter_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now);
void neap_limiter_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at,
			 neap_ns now);
/* After _init, of a limiter in memory that processes share. One that is killed in the midst of a
 * neap_all_take then leaves no word held: who waits for it goes on after some 10 to 200 ms. One
 * that was only stopped there for so long, and goes on, charges what it took: a burst may be
 * exceeded by that. Costs a few ns per take of several. Other kinds need no such care. */
void neap_limiter_share(struct neap_limiter *l);
/* Make a conditional limiter. NEAP_ERANGE, *l untouched: a limiter it cannot be of, or a multiple
 * out of range. When a pause of it ends early, say _touch of that pause to the engine. */
int neap_conditional_init(struct neap_limiter *l, const struct neap_conditional *c);
/* Whole tokens or permits free at 'now', and the most there can be; INT64_MAX is "no bound". Of a
 * conditional one, what it asks now is a token, and of the most what it asks at least. */
int64_t neap_limiter_available(const struct neap_limiter *l, neap_ns now);
/* Let at most 'tokens' go until 'until', as _gcra_hold or _window_hold says. NEAP_ERANGE: it is of
 * another kind, and nothing was done. */
int neap_limiter_hold(struct neap_limiter *l, int64_t tokens, neap_ns until, neap_ns now);
int64_t neap_limiter_capacity(const struct neap_limiter *l);
/* 1: at 'now' it is as good as a new one, nothing spent and nothing out. */
int neap_limiter_is_new(const struct neap_limiter *l, neap_ns now);
/* When 'cost' would conform after 'ahead' more tokens were granted as early as possible. */
neap_ns neap_limiter_after(const struct neap_limiter *l, int64_t ahead, int64_t cost, neap_ns now);

/* One limiter's part in a composite: it is asked for multiplier * request.cost[cost]; a keyed one
 * for what it keeps of request.key[key]. */
struct neap_term {
	struct neap_limiter *limiter;
	int64_t multiplier;   /* 1 .. 2^31 - 1 */
	int32_t cost;         /* 0 .. NEAP_COSTS - 1 */
	int32_t key;          /* 0 .. NEAP_KEYS - 1; only a keyed limiter looks at it */
};

/* All terms or none. Terms of one limiter stand next to each other and are charged as a sum; up
 * to NEAP_TERMS terms, none at all is no limit. The all, its terms and limiters are the caller's
 * and stay where they are while a request on them is queued: a line is known by their address. */
struct neap_all {
	const struct neap_term *terms;
	int32_t count;
	uint32_t kinds;       /* 1 << NEAP_... for each kind among the limiters */
	struct neap_stats *stats;   /* NULL, or where an engine counts what became of requests */
};

/* Make an all of these terms, without stats. NEAP_ERANGE, *all untouched: a NULL, too many
 * terms, a multiplier, a cost or a key outside its range, terms of one limiter that do not stand
 * together, or that name different keys; a conditional one of a limiter that has another term. */
int neap_all_init(struct neap_all *all, const struct neap_term *terms, int32_t count);

/* The first instant at which every term conforms (the maximum), and in *bound (may be NULL) the
 * index of the term that decides it, -1 when nothing stands in the way. cost[NEAP_COSTS] are
 * tokens, each 0 to 2^59; terms whose cost is 0 are not asked. */
neap_ns neap_all_when(const struct neap_all *all, const int64_t *cost, neap_ns now,
		      int32_t *bound);
/* Take from all terms at 'now' or from none; answers as _when, up to 'now' means taken. Over words
 * that others share, too, all or none at once: there is no moment at which some are taken. */
neap_ns neap_all_take(const struct neap_all *all, const int64_t *cost, neap_ns now,
		      int32_t *bound);
/* _take for one who stood in line since before 'at', the first instant that conforms: charged in
 * units at the exact moment the tokens arrived, so nothing is lost to rounding. */
neap_ns neap_all_claim(const struct neap_all *all, const int64_t *cost, neap_ns at,
		       int32_t *bound);
void neap_all_give(const struct neap_all *all, const int64_t *cost, int outcome, neap_ns at,
		   neap_ns now);
void neap_all_settle(const struct neap_all *all, const int64_t *cost, const int64_t *used,
		     neap_ns at, neap_ns now);

/* ==== ring 0: cell ====================================================================== */

/* The arithmetic of redis-cell, one word of state per key: 'tat', an instant, free (as good as
 * new) once it is no later than now. Whole nanoseconds per token, as that module has it; own
 * limits use gcra, which keeps the fraction. */
struct neap_cell {
	neap_ns interval_ns;   /* one token, rounded down to a whole ns, >= 1 */
	neap_ns tolerance_ns;  /* interval_ns * limit, at most 2^62 */
	int64_t limit;         /* tokens at once: max_burst + 1 */
};

/* What CL.THROTTLE replies, in its order, and the word to keep. */
struct neap_cell_reply {
	int64_t limited;       /* 1: refused */
	int64_t limit;         /* tokens */
	int64_t remaining;     /* tokens that could follow now */
	int64_t retry_s;       /* seconds, any started ms counts; -1: granted, or never possible */
	int64_t reset_s;       /* seconds until all of the limit is free again */
	neap_ns tat;           /* store this; equal to what was given when nothing was spent */
};

/* count tokens per period_ns and max_burst more at once. NEAP_ERANGE, *c untouched: max_burst
 * below 0 or INT64_MAX, count or period_ns below 1, more than one token per ns, or a limit that
 * takes longer than 2^62 ns to refill; _why then says which, in words for a caller (static
 * text; NULL when _init would accept). */
int neap_cell_init(struct neap_cell *c, int64_t max_burst, int64_t count, neap_ns period_ns);
const char *neap_cell_why(int64_t max_burst, int64_t count, neap_ns period_ns);
/* Spend 'quantity' (>= 0; 0 only looks) for a key whose word is 'tat' (any value up to now is a
 * new key). Pure: the caller stores r->tat. */
void neap_cell_take(const struct neap_cell *c, neap_ns tat, int64_t quantity, neap_ns now,
		    struct neap_cell_reply *r);
/* ==== end of cell ==== */

/* ==== ring 1: wheel, timers ============================================================= */

/* Timers are small integers, 0 .. capacity - 1, each set or not. */
struct neap_wheel;

/* Room for 'capacity' timers (1 to 2^30), all memory at once: 20 bytes each and 600 KB. NULL when
 * there is no memory. */
struct neap_wheel *neap_wheel_open(uint32_t capacity, neap_ns now);
void neap_wheel_close(struct neap_wheel *w);
/* (Re)set timer 'id' to instant 'due'; one that is past is due at once. */
void neap_wheel_set(struct neap_wheel *w, uint32_t id, neap_ns due);
/* Unset it; harmless when it is not set. */
void neap_wheel_cancel(struct neap_wheel *w, uint32_t id);
/* Take out the timer due first, if due by 'now': its id, in exact order of (due, id), its instant
 * in *due; else -1. Call until -1: that last call also tidies up, a bounded amount. */
int64_t neap_wheel_pop(struct neap_wheel *w, neap_ns now, neap_ns *due);
/* No timer is due before this; neap_never when none is set. Exact, unless a timer nearby was
 * cancelled: then it may be that one's instant. */
neap_ns neap_wheel_next(struct neap_wheel *w);
uint32_t neap_wheel_count(const struct neap_wheel *w);
int64_t neap_wheel_bytes(const struct neap_wheel *w);   /* memory held */
/* Every invariant, the slow way: 0 or NEAP_ECORRUPT. */
int neap_wheel_check(const struct neap_wheel *w);

/* ==== ring 1: keys ====================================================================== */

/* A bounded table from key to one word, 16 bytes an entry. Words are instants (ns, or any unit
 * that grows with the clock): an entry whose word is at or before 'clock' is what a new key would
 * be, so it is free and is used again without being asked. Clocks are >= 0. One thread. */
struct neap_keys;

/* What to do with a new key when the table is full of those that are alive. */
enum { NEAP_REFUSE = 0, NEAP_LEAST_RECENT, NEAP_SHARED };

/* 'count_max' keys alive at once always fit (1 to 2^30; above 512 a quarter more may); 'secret' is
 * 16 random bytes that keep strangers from choosing keys that collide. Starts with up to 8 KiB and
 * grows, twofold at a time and 16 entries per call, to 20 bytes per key of the bound; while it
 * grows the smaller table is there as well. Without memory to grow it goes on as it is. NULL when
 * there is none to start with, or count_max is out of range. */
struct neap_keys *neap_keys_open(int64_t count_max, const uint8_t *secret);
void neap_keys_close(struct neap_keys *k);
/* As _close, but 64 KiB a call, for large tables take their time; 1: that was all of it. Until
 * then _find, _forget and _next may be used, and find less and less. */
int neap_keys_close_some(struct neap_keys *k);
/* To be said at once after _open: remember when each key was last seen, in 8 bytes more an entry.
 * One that was not for idle_ns (0: however long), in whole microseconds, is forgotten whatever its
 * word, by time alone: if that is sooner than words pass, debts are forgotten, so who must not lose
 * one says 0. 'full' NEAP_LEAST_RECENT: a new key that finds no place takes that of the least
 * recently seen, of all in a table of up to 512 entries, of the 32 it may use in a larger one;
 * never more than count_max are alive. NEAP_ENOMEM. */
int neap_keys_remember(struct neap_keys *k, neap_ns idle_ns, int full);
/* The instant of the calls that follow, for a table that remembers. Never steps back. */
void neap_keys_turn_to(struct neap_keys *k, neap_ns now);
/* SipHash-1-3 of a key under a secret of 16 bytes: a text, or a number, which no text is. */
uint64_t neap_hash(const uint8_t *secret, const char *key, size_t size);
uint64_t neap_hash_integer(const uint8_t *secret, int64_t key);
/* The same under the table's secret: what the calls below name a key by. */
uint64_t neap_keys_hash(const struct neap_keys *k, const char *key, size_t size);
/* The word of the key, made (free) if it is not there: write an instant after 'clock' to keep
 * it, or leave it. The key is seen. The pointer holds until the next call on the table. NULL when
 * the table is at its bound and the 512 entries this key may use are all alive. */
int64_t *neap_keys_at(struct neap_keys *k, uint64_t hash, int64_t clock);
/* The same, but NULL when the key is not alive. Makes nothing, and is not seeing it. */
int64_t *neap_keys_find(struct neap_keys *k, uint64_t hash, int64_t clock);
/* The key of this word, which _find just answered, is seen. */
void neap_keys_touch(struct neap_keys *k, const int64_t *word);
/* Will _at, as the next call, find a place for a key that is not there? 1, or 0: not before one of
 * those in its way is free, the first at clock *least, or when idle at instant *idle_at. */
int neap_keys_room(struct neap_keys *k, uint64_t hash, int64_t clock, int64_t *least,
		   neap_ns *idle_at);
/* The key is not alive any more. */
void neap_keys_forget(struct neap_keys *k, uint64_t hash);
/* Walk what is alive, in order of hash, *cursor 0 first; at most 16 lines a call. 1: here is one;
 * 0: none among those; -1: that was all. Whatever is done to the table meanwhile, a key that is
 * alive all the time is met once. So keys can move to another table a few at a time, while they
 * are looked for in both. */
int neap_keys_next(const struct neap_keys *k, uint64_t *cursor, uint64_t *hash, int64_t *word);
/* How many are alive. Walks the table: about 1 ns per entry. */
int64_t neap_keys_count(const struct neap_keys *k, int64_t clock);

struct neap_keys_stats {
	int64_t count_max;   /* as opened */
	int64_t entries;     /* in the table now */
	int64_t bytes;       /* memory held */
	int64_t refused;     /* _at answered NULL, ever */
	int64_t evicted;     /* made room while alive, ever */
	int64_t moving;      /* entries of the smaller table not moved yet */
};
void neap_keys_stats(const struct neap_keys *k, struct neap_keys_stats *out);
/* Every invariant, the slow way: 0 or NEAP_ECORRUPT. */
int neap_keys_check(const struct neap_keys *k, int64_t clock);
/* ==== end of keys ==== */

/* ==== ring 1: keyed, a limit for every key ============================================== */

/* Every key has the limit that 'like' is, a gcra or a semaphore (or a pause: see _word), and begins
 * as a new one; 'like' is copied. A key takes 16 bytes once it is used, and none when nothing of
 * that is left. At most 'count_max' are alive (see neap_keys_open; there, too, 'idle_ns' and
 * 'secret'); then a new one is turned away (NEAP_SHED), or takes the place of the least recently
 * seen, debts forgotten, or shares one limiter with all others that found no place; who has permits
 * out is forgotten by _forget alone, neither to make room nor for being idle. 'like' NULL: keys have
 * the limiters that _set gives them, others are turned away. NULL: no memory, or bad arguments.
 *
 * It takes part in requests to an engine as the limiter {.kind = NEAP_KEYED, .as.keyed = k}, which
 * holds no state, for request.key[term.key]. One thread, that of its one engine, which is to have
 * seen a 'now' (_advance) before it is said here: what was due before it is then done. */
struct neap_keyed *neap_keyed_open(const struct neap_limiter *like, int64_t count_max, int full,
				   neap_ns idle_ns, const uint8_t *secret);
void neap_keyed_close(struct neap_keyed *k);
/* Another limit for all keys, of the same kind, which keeps of each what NEAP_KEEP_... says; keys
 * with limiters of their own keep those. Words are carried over as keys are used, a few more with
 * each call; a change that comes before that is done carries all the rest at once. NEAP_ENOMEM;
 * NEAP_ERANGE for another kind; NEAP_EFULL when keys of the last change still wait for a place in a
 * full table. Say _touch to the engine. */
int neap_keyed_change(struct neap_keyed *k, const struct neap_limiter *like, int keep, neap_ns now);
/* Give a key a limiter of its own, of any kind but keyed, which stays the caller's; NULL takes it
 * away again. NEAP_ENOMEM. Say _touch to the engine when somebody may wait. */
int neap_keyed_set(struct neap_keyed *k, uint64_t key, struct neap_limiter *limiter);
/* Let a key have at most 'tokens' until 'until', as neap_limiter_hold does a limiter; of a key without
 * a limiter of its own 56 bytes are kept for that, and no longer than something is held or owed. It
 * is not forgotten meanwhile to make room or for being idle, and needs no place in the table. As many
 * as 'count_max' are held besides the keys that are alive; a change carries them over at once.
 * NEAP_ERANGE when it cannot be held: permits, or no limiter for the key; NEAP_EFULL when as many are
 * held, of which a few that are over are let go with each call; NEAP_ENOMEM. Say _touch_key. */
int neap_keyed_hold(struct neap_keyed *k, uint64_t key, int64_t tokens, neap_ns until, neap_ns now);
/* A copy of what the key has, for looking. NEAP_EFULL: it would be turned away. */
int neap_keyed_look(struct neap_keyed *k, uint64_t key, neap_ns now, struct neap_limiter *out);
/* Forget a key as if it were new, and not held; one with a limiter of its own keeps that. */
void neap_keyed_forget(struct neap_keyed *k, uint64_t key);
/* Of a table in a segment, to be said before it is used: forget keys that were not seen for idle_ns
 * (0: none), as this process sees it. */
void neap_keyed_idle(struct neap_keyed *k, neap_ns idle_ns);
/* For arithmetic of the caller's own, of a keyed like a pause, which is to be in no request: the word
 * of a key, 0 if it has none, or one up to 'clock'. And make it 'to' (>= 0) if it is 'from': 1; 0: it
 * is another by now; NEAP_EFULL: there is no room for another key. So who reads, computes, and swaps
 * until it is 1 is alone, of all processes if the table is theirs. Of permits the word is how many
 * are out; NEAP_ERANGE: not so many are this process's to give back. */
int64_t neap_keyed_word(struct neap_keyed *k, uint64_t key, int64_t clock);
int neap_keyed_swap(struct neap_keyed *k, uint64_t key, int64_t clock, int64_t from, int64_t to);
/* Another bound on the keys that are alive; those that are stay as they are, even if they are more.
 * NEAP_ENOMEM, NEAP_EFULL as _change, and then nothing is done. Say _touch to the engine. */
int neap_keyed_bound(struct neap_keyed *k, int64_t count_max, neap_ns now);
/* What a table is written down as, and made again from: how long until a rate is full again, in ns, or
 * how many permits are out. */
struct neap_word { uint64_t key; int64_t left; };
/* The next of those that are not as good as new, up to 'max' (from 1), in no order; *cursor 0 first.
 * Their number, which may be 0, or -1: that was all. So a large table is walked a bit at a time;
 * changes meanwhile are met or not. Keys with limiters of their own, or that are held, are not. */
int64_t neap_keyed_walk(struct neap_keyed *k, uint64_t *cursor, neap_ns now, struct neap_word *out,
			int64_t max);
/* Make a key, which has no limiter of its own, like that. NEAP_EFULL: there is no room for it. */
int neap_keyed_put(struct neap_keyed *k, uint64_t key, int64_t left, neap_ns now);
/* How many keys are alive, those with limiters of their own and those that are held included. Walks
 * the table. */
int64_t neap_keyed_count(struct neap_keyed *k, neap_ns now);

struct neap_keyed_stats {
	int64_t entries, bytes;              /* now */
	int64_t refused, evicted, shared;    /* new keys that met a full table, ever */
};
void neap_keyed_stats(const struct neap_keyed *k, struct neap_keyed_stats *out);
/* ==== end of keyed ==== */

/* ==== ring 1: queue, a bounded waiting room ============================================= */

/* Places for those who wait for an engine's limiters, whatever each of them asks: requests that
 * name a queue are served one by one. A higher priority goes first, keys of one priority take turns
 * by what they cost, one key's go as they came; and while the first has to wait, so do all. Who may
 * go at once takes no place. One engine, and its thread. */
struct neap_queue;

/* What becomes of a newcomer that finds all places taken. */
enum {
	NEAP_REJECT = 0,    /* it is turned away */
	NEAP_DROP_OLDEST,   /* who has waited longest makes room */
	NEAP_DROP_LOWEST,   /* the newest of the lowest priority does, when the newcomer's is higher */
};

/* 'capacity' places (1 to 2^24), whose memory comes at once: 0.6 to 1.1 KB each, touched as they are
 * used. With ageing_ns (1 to neap_horizon) a waiter rises by one priority for each ageing_ns it
 * has waited; 0: never. NULL when there is no memory or a number is out of range. */
struct neap_queue *neap_queue_open(uint32_t capacity, int overflow, neap_ns ageing_ns);
/* Nobody may wait there any more. */
void neap_queue_close(struct neap_queue *q);

struct neap_queue_stats {
	int64_t waiting;    /* places taken */
	int64_t capacity;
	int64_t flows;      /* keys that wait, and keys remembered for having been served */
	int64_t classes;    /* their priorities */
	int64_t served;     /* ever; those who went at once included */
	int64_t refused;    /* newcomers for whom there was no place, ever */
	int64_t dropped;    /* who had to make room, ever */
	int64_t bytes;      /* memory held */
};
void neap_queue_stats(const struct neap_queue *q, struct neap_queue_stats *out);
/* Every invariant, the slow way: 0 or NEAP_ECORRUPT. */
int neap_queue_check(const struct neap_queue *q);
/* ==== end of queue ==== */

/* ==== ring 1: stats, what became of requests ============================================ */

/* Why a request was refused. */
enum {
	NEAP_BY_RATE = 0,   /* tokens have yet to arrive */
	NEAP_BY_BUSY,       /* permits have yet to come back */
	NEAP_BY_LINE,       /* others wait, and go first */
	NEAP_BY_PAUSE,      /* nobody leaves for a while */
	NEAP_BY_OPEN,       /* a breaker turns calls away */
	NEAP_BY_FULL,       /* a keyed limiter has no room for another key */
	NEAP_BY_COST,       /* more than there can ever be */
	NEAP_BY_CLOSED,     /* nothing passes, whatever it costs */
	NEAP_BY_OTHER,      /* the engine knows no other: the caller's, who may count, too */
	NEAP_CAUSES,
};

enum { NEAP_WAIT_BUCKETS = 162 };

/* How long waiters stood in line: a histogram of four buckets to an octave, from 1024 ns to 2^50 ns
 * (13 days), one for less and one for more. Zeroed is ready. */
struct neap_waits {
	int64_t count;
	neap_ns sum_ns;         /* INT64_MAX: that much, or more */
	neap_ns max_ns;
	int64_t bucket[162];    /* NEAP_WAIT_BUCKETS; see neap_waits_bound */
};

/* What became of the requests on an all, counted by the engine when it answers them and when their
 * tickets end; one that was only looked at (_peek) does not count. Zeroed is ready. The caller's
 * memory, and one engine's: of that engine's thread. */
struct neap_stats {
	int64_t granted;        /* at once or in the end */
	int64_t waited;         /* of these, those that stood in line */
	int64_t undone;         /* of these, those settled with nothing used: as if never granted */
	int64_t refused[9];     /* by NEAP_BY_...; NEAP_CAUSES of them */
	int64_t expired;        /* NEAP_TIMEOUT, at once or in line */
	int64_t cancelled;
	int64_t queue_full;     /* NEAP_QUEUE_FULL */
	int64_t settled_up;     /* settled for more, at some cost */
	int64_t settled_down;   /* and for less */
	int64_t leaked;         /* the engine cannot know: permits that their owners lost */
	int64_t at_once;        /* _acquire answered without a line: a wait of 0, whatever it said */
	struct neap_waits *waits;   /* NULL, or how long the others stood in line, however it ended */
};

/* The wait that 'per_million' of all calls of _acquire (and 1 at least) did not exceed: 500,000 is
 * the median, 1,000,000 the longest. From 1024 ns to 2^50 ns it is within an eighth of the truth,
 * below that within 512 ns, above it the longest. 0 when there was none, or no waits are kept. And
 * who arrives at one instant with n others may count for n ns less. */
neap_ns neap_stats_wait(const struct neap_stats *s, int64_t per_million);
/* Waits in this bucket are shorter than this; neap_never for the last one. */
neap_ns neap_waits_bound(int32_t bucket);
/* Put in one wait. */
void neap_waits_add(struct neap_waits *w, neap_ns wait_ns);
/* ==== end of stats ==== */

/* ==== ring 1: engine, waiting =========================================================== */

/* Lines of waiters over any number of limiters, and sleepers, on one clock. One thread. Waiters
 * hear of permits that are given back through their own engine; of others' gives, say _touch.
 * Nobody is overtaken at the limiter before which it stands. One who needs several may be
 * overtaken at each while it stands at another, for waiting holds no token; but not for ever: who
 * has gone from one to another 8 times is urgent, one at a time and the eldest first, and then
 * nobody younger takes of its limiters what would make it come later. */
struct neap_engine;

enum {
	NEAP_GRANTED = 1,   /* taken, at 'at' */
	NEAP_WAITING,       /* in line under 'ticket'; 'at' is the earliest it can be */
	NEAP_REFUSED,       /* not now; 'at' is the earliest, 'bound' what stands in the way */
	NEAP_NEVER,         /* a cost above a capacity; 'bound' which */
	NEAP_TIMEOUT,       /* the deadline came, or cannot be met: then 'at' is the earliest */
	NEAP_CANCELLED,
	NEAP_WOKEN,         /* a sleep is over */
	NEAP_QUEUE_FULL,    /* all waiters_max places are taken, or the queue's */
	NEAP_SHED,          /* turned away by 'bound', for which nobody waits: an open breaker, or a
			     * keyed limiter with no room for another key; 'at' is when to come
			     * back */
};

struct neap_request {
	const struct neap_all *all;
	neap_ns deadline;             /* an instant; neap_never waits as long as it takes */
	int64_t cost[8];              /* NEAP_COSTS tokens each, 0 to 2^59 */
	uint64_t key[4];              /* NEAP_KEYS hashes of keys, for keyed terms */
	struct neap_queue *queue;     /* where to wait; NULL: with all who ask the same, as they come */
	uint64_t flow;                /* in a queue: hash of whom to be fair to; 0 is one, too */
	int32_t priority;             /* in a queue: higher goes first */
	uint64_t on;                  /* to _give and _settle: what the answer or completion said */
};

struct neap_answer {
	int32_t status;
	int32_t bound;    /* index into all->terms of what binds, or -1 */
	neap_ns at;       /* see the status; neap_on_give when only a give can tell, or the end of
			   * a pause */
	int64_t ticket;   /* NEAP_WAITING only: 1 to 2^53 - 1, so a Lua number holds it */
	int64_t ahead;    /* waiters that go first */
	uint64_t on;      /* bit i: term i is conditional, and was asked as while its pause is on */
};

/* How a ticket ended. Every ticket ends exactly once. */
struct neap_completion {
	int64_t ticket;
	neap_ns at;       /* the exact instant, which may lie before the 'now' that noticed it */
	int32_t status;   /* NEAP_GRANTED, NEAP_TIMEOUT, NEAP_CANCELLED, NEAP_WOKEN, NEAP_SHED,
			   * NEAP_QUEUE_FULL when another took its place in a queue, or NEAP_NEVER
			   * when a limit was lowered below the cost meanwhile */
	int32_t bound;    /* NEAP_TIMEOUT, NEAP_NEVER, NEAP_SHED: what stood in the way; else -1 */
	uint64_t on;      /* NEAP_GRANTED: as in the answer */
};

/* Room for 'waiters_max' tickets at once (1 to 2^24), whose memory comes at once (128 bytes
 * each); lines come as they are needed. NULL when there is no memory. */
struct neap_engine *neap_engine_open(uint32_t waiters_max, neap_ns now);
/* Tickets still open are forgotten, not completed. */
void neap_engine_close(struct neap_engine *e);

/* Every call below first lets all that was due by 'now' happen, each at its own instant. A 'now'
 * that steps back counts as the latest one seen. */

/* Take now or not at all, never overtaking those who wait for the same limiter: NEAP_GRANTED,
 * NEAP_REFUSED or NEAP_NEVER. _peek answers the same and takes nothing. */
void neap_engine_try(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		     struct neap_answer *a);
void neap_engine_peek(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		      struct neap_answer *a);
/* Take now or stand in line: NEAP_GRANTED, NEAP_WAITING, or at once NEAP_NEVER, NEAP_TIMEOUT,
 * NEAP_QUEUE_FULL. NEAP_ENOMEM when a line had no memory, and nothing was done. */
int neap_engine_acquire(struct neap_engine *e, const struct neap_request *r, neap_ns now,
			struct neap_answer *a);
/* A ticket that ends with NEAP_WOKEN at 'until'. 0 when all places are taken. */
int64_t neap_engine_sleep(struct neap_engine *e, neap_ns until, neap_ns now);
/* End a ticket as NEAP_CANCELLED: 1, or 0 when it is unknown or has ended already (a grant that
 * is not drained yet is the caller's, to use or give back). */
int neap_engine_cancel(struct neap_engine *e, int64_t ticket, neap_ns now);
/* Give back, or correct, what was granted to 'r' at instant 'at'; those who can go now are granted
 * now. */
void neap_engine_give(struct neap_engine *e, const struct neap_request *r, int outcome, neap_ns at,
		      neap_ns now);
void neap_engine_settle(struct neap_engine *e, const struct neap_request *r, const int64_t *used,
			neap_ns at, neap_ns now);
/* Take for the first instant at which all terms conform, if that is up to 'latest', and be told
 * now: NEAP_GRANTED, and 'at' is when to go. Rates and windows are charged as of then; permits are
 * out from now on. Otherwise NEAP_REFUSED, as _peek: it is later, or not known; somebody waits
 * ('ahead'), for who waits has no instant yet; or it is too far ahead for 'bound', a breaker on
 * trial, or a rate that would be there for nobody else until then: then 'at' is when to ask again.
 * Not on limiters that other threads or processes use.
 * Answers NULL, or, when 'at' is to come, what to _unbook: in any case, once, before the engine is
 * closed, for that also frees it. Before 'at' the take is undone, and others may go: 1; later nothing
 * else happens: 0. No memory for it: NEAP_QUEUE_FULL. */
struct neap_booking;
struct neap_booking *neap_engine_book(struct neap_engine *e, const struct neap_request *r,
				      neap_ns latest, neap_ns now, struct neap_answer *a);
int neap_engine_unbook(struct neap_engine *e, struct neap_booking *b, neap_ns now);
/* The caller changed this limiter itself (refilled, raised, cleared): ask its waiters anew. */
void neap_engine_touch(struct neap_engine *e, const struct neap_limiter *l, neap_ns now);
/* The same for one key of a keyed limiter, and for what the key has of its own. */
void neap_engine_touch_key(struct neap_engine *e, const struct neap_limiter *l, uint64_t key,
			   neap_ns now);
/* Let time pass. Answers the number of completions to drain. */
int64_t neap_engine_advance(struct neap_engine *e, neap_ns now);
/* From now on: when what is due is found more than 'late_ns' (>= 0) late, the process stood still, and
 * who waited is granted at 'now' instead of when its turn was, so that no more leave at once than a
 * burst; deadlines are over, and sleepers that came due sleep 'grace_ns' (> 0) more. neap_never, as
 * it is unless told: every grant at its own instant, however late. */
void neap_engine_late(struct neap_engine *e, neap_ns late_ns, neap_ns grace_ns);
/* When to call _advance next: no ticket ends by time before this. neap_never: none will. */
neap_ns neap_engine_next_due(struct neap_engine *e);
/* Move up to 'max' completions, in the order they happened, into out; the number moved. Their
 * tickets are then free to be used again. */
int64_t neap_engine_drain(struct neap_engine *e, struct neap_completion *out, int64_t max);

struct neap_engine_stats {
	int64_t waiting;       /* tickets standing in a line */
	int64_t sleeping;
	int64_t completed;     /* ended, not drained */
	int64_t waiters_max;
	int64_t lines;         /* distinct (all, costs in use) that somebody waits for */
	int64_t wakeups;       /* heads asked because their time came or a permit did, ever */
	int64_t granted;       /* tickets granted, ever */
	int64_t jumps;         /* the process was found to have stood still, see _late, ever */
	int64_t bytes;         /* memory held */
};
void neap_engine_stats(const struct neap_engine *e, struct neap_engine_stats *out);
/* Every invariant, the slow way: 0 or NEAP_ECORRUPT. */
int neap_engine_check(const struct neap_engine *e);

/* ==== ring 1: segment, limiters that processes share =================================== */

/* A file, mapped by any number of processes, that holds limiters by name; kept in memory when it lies
 * on a tmpfs. It outlives them all, until the machine is started anew, and any of them may be killed
 * at any instant: what it was doing is then done or not done, nobody waits for it, and permits that
 * it held come back (_reap). One that is stopped in the midst of a call (some 100 ns) may keep
 * others waiting until it goes on.
 *
 * A limiter in there is used by its address, as any other, in terms of an all, in lines of engines,
 * and by neap_limiter_..., by any thread of any process that has the segment open; what is said of
 * one owner does not hold there. But by those verbs alone, for the ones of its kind (neap_window_...)
 * know of no others; of a pause they may be used, and fields may be read by who does not mind that
 * they move. All processes go by one clock, which counts on when they begin anew.
 *
 * Each process has its own address for a limiter; after fork the child may go on with its parent's.
 * Permits belong to the process that takes them: who gives back, or settles, more than it holds
 * itself changes nothing by that; a child holds nothing. Waiters of one engine hear of permits given
 * back through that engine alone: of others', ask again, or say _touch.
 *
 * Whoever may write the file can make all who open it misbehave. */
struct neap_segment;

enum { NEAP_NAME_BYTES = 64 };   /* with the end mark */

enum {
	NEAP_MAKE = 0,     /* make it if it is not there */
	NEAP_ATTACH,       /* only if it is */
	NEAP_INSPECT,      /* only if it is, and never write: neither _find nor _add nor _reap */
};

/* Zeroes are what is usual. Bounds are those of a segment that is made; one that is there has to
 * have them at least. */
struct neap_segment_options {
	int64_t log_bytes;       /* for the logs of windows, twice 16 bytes an entry, and of breakers,
				  * each rounded up to a power of two; and for keys. Up to 2^36.
				  * 0: 512 KiB */
	int32_t limiters_max;    /* names, 1 to 65536; 0: 64 */
	int32_t processes_max;   /* that may ever hold permits, at once, 1 to 1024; 0: 64. What more
				  * of them take does not come back when they die */
	int32_t mode;            /* permissions of the file, 0600 to 0777; 0: 0600 */
	int32_t how;             /* NEAP_MAKE, NEAP_ATTACH, NEAP_INSPECT */
	int64_t uid, gid;        /* whose the file is to be; 0: as the system makes it */
};

/* Open the segment of this path, or, where 'name' has no slash, of that name in /dev/shm. Any number
 * of processes may do so at once: they have one and the same, and nobody sees it half made. All its
 * memory is there from the beginning. One of before the machine was last started counts as not
 * there. Answers NEAP_OK and the segment in *out, or, with one line in error:
 *     NEAP_ESYS      no permission, no space, no such directory, or none there: errno says
 *     NEAP_EFOREIGN  no segment; one of another version, size, pid namespace; or its owner is neither
 *                    this user, nor root, nor the uid asked for. Nothing was changed
 *     NEAP_EFULL     its bounds are lower than asked for
 *     NEAP_ERANGE    a number out of range, or a name too long
 *     NEAP_ENOMEM */
int neap_segment_open(const char *name, const struct neap_segment_options *options,
		      struct neap_segment **out, char *error, size_t size);
/* To be said once for each _open: a process maps a file once, and after the last _close its limiters
 * may not be used any more. Permits that are out stay so until the process ends, or has opened it
 * again and gives them back. The file stays: who wants it gone removes it when nobody has it open. */
void neap_segment_close(struct neap_segment *s);

/* The limiter of a name, or NULL. Its address holds until _close. */
struct neap_limiter *neap_segment_find(const struct neap_segment *s, const char *name);
/* The limiter of this name, made as 'like' is if there is none: of any kind but keyed, as its _init
 * made it, and copied. The log that _init was told is not touched, and may be any; of its size one
 * is made. If there is one that was asked for otherwise, it becomes what 'like' is, keeping its state
 * (of a gcra what 'keep', NEAP_KEEP_..., says; of a breaker not the outcomes under another rule; of an
 * adaptive one of another kind the limit and permits), provided 'generation' is higher than that of
 * who asked for it; 0 is one more than that. So of two generations of workers the newer one wins,
 * whichever comes last, and the older go on under it. Answers 0; 1 when another configuration than
 * 'like' holds; or NEAP_EFULL (names, or memory for logs), NEAP_ERANGE (another kind than the one
 * there is, a name of no bytes or more than 63, a limiter that _init would refuse) and leaves *out. */
int neap_segment_add(struct neap_segment *s, const char *name, const struct neap_limiter *like,
		     int keep, int64_t generation, neap_ns now, struct neap_limiter **out);
/* Limits by key, for all processes: as neap_keyed_open, of a table in the segment, of which *out is
 * this process's, to be closed before the segment. 'count_max' keys alive at once, in 31 bytes each,
 * up to 13 KB more, and at least 13, of 'log_bytes'; above 512 they are cut into stripes of 410, and
 * one of a million may be full before all are. It does not grow. Of permits, below 2^48 of a key, a
 * process that holds some takes such an entry, and they come back when it dies (_reap). 'full' as
 * there, each as this process asks for it: those of all processes that say NEAP_SHARED share one
 * limiter, and the least recently seen is that of the stripe. What time has refilled makes room.
 *
 * All processes must hash keys under the segment's secret (_secret). Names, 'generation', 'keep' and
 * answers as for _add, and neap_keyed_change is that with generation 0; NEAP_EFULL, too, when the
 * table there is has fewer keys, and NEAP_ENOMEM, after which it is there all the same.
 *
 * Between processes a request is granted all its terms or none, and a key never more than its limit;
 * its waiters are woken, in order, by their own process, and nobody has precedence over those of
 * another. A key's own limiter (_set) is this process's, though it may lie in the segment; so is
 * what _stats counts. No key can be held: an entry is one word that is written at once, and a hold is
 * three. An all has the table of a name once. */
int neap_segment_keyed(struct neap_segment *s, const char *name, const struct neap_limiter *like,
		       int64_t count_max, int full, int keep, int64_t generation, neap_ns now,
		       struct neap_keyed **out);
/* The 16 bytes under which keys are hashed (neap_hash). */
void neap_segment_secret(const struct neap_segment *s, uint8_t *secret);
/* Give back what processes held that are dead; answers how many permits. To be called once a second
 * by anybody, and by who waits for permits; 'processes' times some 20 us. If it is more than 0, say
 * _touch for limiters that others wait for. */
int64_t neap_segment_reap(struct neap_segment *s);

/* What is there, without disturbing anybody; also of one that is opened to inspect. */
struct neap_segment_entry {
	char name[64];                 /* NEAP_NAME_BYTES */
	int64_t generation;
	int64_t holders;               /* processes that hold permits of it */
	int64_t keys_max;              /* 0, or of limits by key so many; 'limiter' is what each key
					* has, and those share who found no place */
	struct neap_limiter limiter;   /* as it was at one moment; for looking alone. Its log is the
					* one in use, and goes on */
};
/* Walk them, *cursor 0 first: 1, or 0 at the end. */
int neap_segment_next(const struct neap_segment *s, int32_t *cursor,
		      struct neap_segment_entry *out);

struct neap_segment_stats {
	int64_t limiters, limiters_max;
	int64_t processes, processes_max;   /* that took permits, and are not known to be dead */
	int64_t log_used, log_bytes;
	int64_t bytes;                      /* of the file */
};
void neap_segment_stats(const struct neap_segment *s, struct neap_segment_stats *out);
/* Every invariant, the slow way: 0 or NEAP_ECORRUPT. */
int neap_segment_check(struct neap_segment *s);
/* ==== end of segment ==== */

/* ==== ring 2: loop ====================================================================== */

/* The clock, the sockets' event loop, the signals, and one timer for everything that is due. One
 * thread; a child process made by fork may not touch it. Nothing here calls back: a turn runs
 * and returns, then its caller looks what there is to drain. */
struct neap_loop;

enum {
	NEAP_SIGINT = 1, NEAP_SIGTERM = 2, NEAP_SIGHUP = 4, NEAP_SIGQUIT = 8, NEAP_SIGUSR1 = 16,
	NEAP_SIGPIPE = 32,
};

/* 'slack_ns', 0 to 1 s: the timer ends turns at least this far apart, so that under load one
 * turn serves many; it makes no lone wait late. NULL when the system refuses: errno says why. */
struct neap_loop *neap_loop_open(neap_ns slack_ns);
/* Whatever watches sockets on it must be closed before. */
void neap_loop_close(struct neap_loop *l);
/* The clock: ns since the machine started, counting on while it sleeps. There is one for all loops
 * and processes, so who has a loop of another kind may say NULL. */
neap_ns neap_loop_now(const struct neap_loop *l);
/* How much of that the machine has slept: it grows while the machine does. */
neap_ns neap_loop_asleep(const struct neap_loop *l);
/* Wait until something happens on a watched socket or signal, or 'until' has come, and see to it;
 * answers the clock. 0 looks and does not wait, neap_never waits for events alone. A turn may end
 * for no visible reason, so look again. */
neap_ns neap_loop_turn(struct neap_loop *l, neap_ns until);
/* End the turn under way, or else the next one, at once. From any thread or signal handler. */
void neap_loop_stop(struct neap_loop *l);
/* From now on these signals (a sum) end a turn and are remembered, instead of what the process
 * did with them before; 0 gives them back. NEAP_EFULL when another loop catches. */
int neap_loop_catch(struct neap_loop *l, int signals);
/* The signals remembered since the last call, as a sum. */
int neap_loop_signals(struct neap_loop *l);
/* ==== end of loop ==== */

/* ==== ring 2: save, a file written aside ================================================ */

/* Bytes that become the file at 'path', behind a line with their number and hash, all or nothing.
 * NULL without memory. */
struct neap_save;
struct neap_save *neap_save_open(const char *path);
int neap_save_put(struct neap_save *s, const char *data, int64_t size);   /* NEAP_ENOMEM */
/* Let a thread write it. NEAP_ENOMEM: there is none. */
int neap_save_start(struct neap_save *s);
/* Is it over? Then _problem is what was in the way, in words, or NULL. */
int neap_save_over(struct neap_save *s);
const char *neap_save_problem(const struct neap_save *s);
void neap_save_close(struct neap_save *s);   /* waits for the thread */
uint64_t neap_save_hash(const char *data, int64_t size);
/* ==== end of save ==== */

/* ==== ring 2: service, between a process and who started it ============================= */

/* Send a datagram to a Unix socket, "/path" or, in the abstract namespace, "@name": what is told to
 * systemd goes so (sd_notify). NEAP_ERANGE for another name; NEAP_ESYS when it does not get there:
 * nobody listens, or it would have to wait. */
int neap_service_tell(const char *socket, const char *text, size_t size);
/* 1: this descriptor is the file of that device and inode. */
int neap_service_is(int fd, uint64_t device, uint64_t inode);
/* The number of this process. */
int64_t neap_service_process(void);
/* A number that is another when the file at this path is, or has another size or time. 0: there is
 * none. */
int64_t neap_service_stamp(const char *path);
/* ==== end of service ==== */

/* ==== ring 2: wait, for threads that block ============================================== */

/* How threads, or processes if it lies in memory they share, hear of each other's gives. Zeroed is
 * ready. One for a semaphore, or for several that are asked together. */
struct neap_bell {
	uint32_t rung;      /* times, modulo 2^32 */
	uint32_t asleep;    /* who listens; counts on who was killed there, which does no harm */
};

/* Take, and sleep until then: as _acquire with the clock of all loops, but what it answers is the
 * end, never NEAP_WAITING: NEAP_GRANTED at the exact instant 'at', which the thread hears of later by
 * what its timers are late (50 us unless prctl(PR_SET_TIMERSLACK) says less) and by when it gets a
 * processor. NEAP_ENOMEM as there.
 *
 * Every thread has an engine of its own, with no other ticket open; rates, semaphores, pauses, and
 * what lies in a segment are shared (keyed: each has a struct neap_keyed of that table). Each thread is exact by itself; between threads there is no order, and
 * who comes first is served. It hears when the bell is rung, and else looks when something is due,
 * and once a second: so 'bell' may be NULL where time alone lets one go. Of a segment's limiters it
 * looks twice a second, and each time gives back what dead processes held (_reap), and rings. */
int neap_wait(struct neap_engine *e, const struct neap_request *r, struct neap_bell *bell,
	      struct neap_answer *a);
/* To be said after a give, a settle, or whatever else lets somebody go sooner: all who sleep with
 * this bell ask anew. A few ns when nobody does. Any thread, with or without an engine. */
void neap_ring(struct neap_bell *bell);
/* ==== end of wait ==== */

/* ==== ring 2: child, watch: for what people wrote ======================================= */

/* Bound this process: once it has used cpu_s seconds (> 0) of processor time from now on (up to one
 * less: they are counted whole) it writes last_words (up to 512 bytes, which are copied) to standard
 * error and ends with status 1; and it gets no more than memory_bytes (> 0) of address space. Said
 * again, the time begins anew; memory can only be lowered. NEAP_ERANGE, and nothing was done;
 * NEAP_ESYS: the bound may not hold. */
int neap_bound(uint32_t cpu_s, int64_t memory_bytes, const char *last_words);

struct neap_child {
	int32_t pid;      /* 0: over */
	int32_t fd;       /* what it says, on standard output and error; does not block */
	int32_t status;   /* when over: its exit status, 256 + the signal it died of, -1 not known */
};
/* Start a program with these words, NULL at their end; the first is its path. Its input is empty,
 * it has no other descriptor of ours that closes on exec, and signals are to it what they are to a
 * new process. NEAP_ESYS (errno says why), NEAP_ENOMEM; *c is then untouched. */
int neap_child_start(struct neap_child *c, const char *const *words);
/* Up to 'size' (> 0) bytes of what it says: how many; 0 none now; NEAP_ESYS nothing more will come. */
int64_t neap_child_read(struct neap_child *c, char *buffer, int64_t size);
/* Has it ended? 1, and 'status' holds; or 0. Never waits. */
int neap_child_over(struct neap_child *c);
/* Kill it if it has not ended, wait until it is gone, and forget it. Again is harmless. */
void neap_child_close(struct neap_child *c);

/* A thread that looks on while another one calls what may not come back. Once a call lasts late_ns
 * (>= 8) a line on standard error says so; at dead_ns (>= late_ns) another one, and the process
 * aborts. That the process was stopped does not count. NULL when there is no memory or no thread, or
 * the numbers are out of range. */
struct neap_watch;
struct neap_watch *neap_watch_open(neap_ns late_ns, neap_ns dead_ns);
void neap_watch_close(struct neap_watch *w);
/* Around each call, one at a time, so of one thread; 'what' is its name in that line and outlives the
 * watch. A few ns each. */
void neap_watch_enter(struct neap_watch *w, const char *what);
void neap_watch_leave(struct neap_watch *w);
int64_t neap_watch_late(const struct neap_watch *w);   /* calls that were late, ever */
/* ==== end of child, watch ==== */

/* ==== ring 2: resp, http, server ======================================================== */

enum {
	NEAP_ARGS = 256,               /* words in one command, its name included */
	NEAP_BULK_BYTES = 65536,       /* in one word; as many in an inline command */
	NEAP_QUERY_BYTES = 1048576,    /* one command, or what a client sent ahead of its turn */
	NEAP_REPLY_BYTES = 1048576,    /* replies a client has not fetched; more cuts it off */
	NEAP_EVENT_BYTES = 33554432,   /* the same, of a subscriber; and of it no more than */
	NEAP_EVENT_SOFT_BYTES = 8388608,   /* these for 60 s */
};

struct neap_span { const char *data; uint32_t size; };   /* size bytes, no end mark */

/* Reads commands, of either protocol, from bytes that are the caller's. */
struct neap_parse {
	uint32_t args_max, bulk_max;   /* in: NEAP_ARGS and NEAP_BULK_BYTES, or less */
	uint32_t login;                /* in: 1 before login: the limits' errors say so */
	uint32_t used;                 /* out: bytes the command took, to skip before the next */
	uint32_t need;                 /* out: asking again is vain with fewer bytes than this */
	uint32_t argc;                 /* out: 0 for an empty line, which asks for no reply */
	struct neap_span argv[256];    /* out: into the bytes, until they move */
	char error[96];                /* out: "Protocol error: ...", NUL-terminated */
};
void neap_parse_init(struct neap_parse *p);
/* The bytes from the end of the last command on, in any split: 1 a command (quotes of an inline
 * one are resolved in place), 0 not whole yet, NEAP_ERANGE a protocol error, after which the
 * connection is of no use. Looks at what came before again, at most NEAP_ARGS words of it. */
int neap_parse(struct neap_parse *p, char *data, uint32_t size);

/* Writes replies in RESP2 or RESP3 into memory that grows, up to limit. Zeroed but for 'limit' and
 * 'proto' is ready. What does not fit, or finds no memory, sets 'failed', and from then on nothing
 * is written. */
struct neap_reply {
	char *data;
	uint32_t head, tail, room;   /* the replies are data[head .. tail) of room bytes */
	uint32_t limit;              /* most bytes to hold */
	uint8_t proto;               /* 2 or 3 */
	uint8_t failed;
};
/* Text of _status and _error goes on one line: control bytes become blanks. _error's starts with
 * its code ("ERR ..."). In RESP2 a map is an array of twice 'count', a set an array, a double and
 * a verbatim a bulk, a bool an integer, nulls $-1 and *-1. Elements follow, by the caller. */
void neap_reply_status(struct neap_reply *r, const char *text, size_t size);
void neap_reply_error(struct neap_reply *r, const char *text, size_t size);
void neap_reply_integer(struct neap_reply *r, int64_t value);
void neap_reply_bulk(struct neap_reply *r, const char *data, size_t size);
void neap_reply_verbatim(struct neap_reply *r, const char *data, size_t size);   /* as txt: */
void neap_reply_double(struct neap_reply *r, double value);
void neap_reply_bool(struct neap_reply *r, int value);
void neap_reply_null(struct neap_reply *r);
void neap_reply_null_array(struct neap_reply *r);
void neap_reply_array(struct neap_reply *r, uint32_t count);
void neap_reply_map(struct neap_reply *r, uint32_t count);
void neap_reply_set(struct neap_reply *r, uint32_t count);
void neap_reply_push(struct neap_reply *r, uint32_t count);
void neap_reply_raw(struct neap_reply *r, const char *data, size_t size);        /* as it is */
void neap_reply_free(struct neap_reply *r);   /* its memory; it is as new then */
/* How many bytes the first whole reply in data takes, nested ones included: more than 0, 0 not
 * whole yet, NEAP_ERANGE no reply. */
int64_t neap_reply_measure(const char *data, size_t size);

/* ---- http ---- */

enum {
	NEAP_HTTP_LINE_BYTES = 8192,   /* of a request line, its end included; more: 414 */
	NEAP_HTTP_HEAD_BYTES = 16384,  /* of a request line and its fields; more: 431 */
	NEAP_HTTP_FIELDS = 64,         /* more: 431 */
	NEAP_HTTP_BODY_BYTES = 65536,  /* more: 413 */
	NEAP_HTTP_REPLY_BYTES = 4194304,   /* of a response; a larger one cuts its client off */
};
enum { NEAP_HTTP_OTHER = 0, NEAP_HTTP_GET, NEAP_HTTP_HEAD, NEAP_HTTP_POST };
/* How to answer, a sum: what comes after it is not read; the connection stays, which HTTP/1.0 must
 * be told; there is no body, only its length. */
enum { NEAP_HTTP_CLOSES = 1, NEAP_HTTP_OLD = 2, NEAP_HTTP_BARE = 4 };

struct neap_field { struct neap_span name, value; };   /* the value without blanks around it */

/* Reads requests of HTTP/1.0 and 1.1 from bytes that are the caller's. */
struct neap_http {
	uint32_t body_max;             /* in: NEAP_HTTP_BODY_BYTES, or less */
	uint32_t seen, line;           /* in and out, one pair for each connection: how far it has
					* read; 0 and 0 where a request begins */
	uint32_t used;                 /* out: bytes the request took, to skip before the next */
	uint32_t need;                 /* out: asking again is vain with fewer bytes than this */
	uint32_t how;                  /* out: NEAP_HTTP_CLOSES.. */
	int32_t method;                /* out: NEAP_HTTP_GET.. */
	int32_t minor;                 /* out: of HTTP/1, 0 or 1 */
	int32_t status;                /* out, of an error: 400, 411, 413, 414, 417, 431, 501, 505 */
	uint32_t fields;               /* out */
	const char *error;             /* out, of an error: one line, NUL-terminated */
	struct neap_span verb, target, body;   /* out: into the bytes, until they move */
	struct neap_field field[64];   /* out: the same */
};
void neap_http_init(struct neap_http *p);
/* The bytes from the end of the last request on, in any split: 1 a request, 0 not whole yet,
 * NEAP_ERANGE an error, to be answered with 'status'; after it the connection is of no use. What
 * two readers could understand differently is an error: a line that does not end in CRLF, a blank
 * before a colon, a folded field, a second Content-Length or Host, a Transfer-Encoding. */
int neap_http_parse(struct neap_http *p, const char *data, uint32_t size);

/* A response, by the writer of replies: a status, any number of fields, and a body or
 * _no_body, for 204 and 304. Control bytes in a value become blanks. A response is not stored by
 * anybody and is what its Content-Type says. */
void neap_http_status(struct neap_reply *r, int status, uint32_t how);
void neap_http_field(struct neap_reply *r, const char *name, const char *value, size_t size);
void neap_http_body(struct neap_reply *r, const char *data, size_t size, uint32_t how);
void neap_http_no_body(struct neap_reply *r);

/* ---- server ---- */

/* Clients over TCP and Unix sockets. Commands are pulled, nothing calls back. One thread, that of
 * the loop. A client is named by a number, 1 to 2^53 - 1, never used twice. */
struct neap_loop;
struct neap_server;

/* Who may do what: a command's 'need' must be among a client's 'allow'. 0 needs nothing but being
 * let in; NEAP_BEFORE_LOGIN not even that. In RESP2 what a subscriber says must be
 * NEAP_WHILE_SUBSCRIBED: its replies could not be told from events. */
enum {
	NEAP_ALLOW_ACQUIRE = 1, NEAP_ALLOW_READ = 2, NEAP_ALLOW_EVENTS = 4, NEAP_ALLOW_ADMIN = 8,
	NEAP_ALLOW_ALL = 15, NEAP_BEFORE_LOGIN = 16, NEAP_WHILE_SUBSCRIBED = 32,
};

/* On 'loop', which outlives it; clients_max from 1 to 65536, cut to the descriptors the process
 * may have less 32. Clients are let in at once until _guard says otherwise. NULL without memory. */
struct neap_server *neap_server_open(struct neap_loop *loop, uint32_t clients_max);
/* Close every socket at once, unlink Unix sockets that are ours. */
void neap_server_close(struct neap_server *s);
/* From now on newcomers must log in first. Before that they have 10 words of 16 KiB. */
void neap_server_guard(struct neap_server *s);
/* Listen on "127.0.0.1:6390", "[::1]:6390", "localhost:0" or "unix:/path"; again for more. The
 * number of the listener, from 0, or NEAP_ESYS, NEAP_ERANGE (an address that reads wrong, or not
 * of this machine alone without _guard), NEAP_EFULL (16 are open), with one line in error. */
int neap_server_listen(struct neap_server *s, const char *address, char *error, size_t size);
/* The same for HTTP: whoever comes there speaks it and nothing else. */
int neap_server_listen_http(struct neap_server *s, const char *address, char *error, size_t size);
/* Listen with a socket that listens already, of whoever started this process; it is the server's from
 * now on, and no file is unlinked for it. The number of the listener, or as above: it is still the
 * caller's then. */
int neap_server_adopt(struct neap_server *s, int fd, int http, char *error, size_t size);
/* Where it listens, the port that was given for :0 included; NULL when there is none. */
const char *neap_server_address(const struct neap_server *s, int listener);
/* Accept no client of Redis any more; those who are in stay, and HTTP's may come and hear of it. */
void neap_server_drain(struct neap_server *s);

/* Make a command known: its name (any case, up to 31 bytes), how many words it has with its name
 * (-n: n or more) and what it needs. Its kind, from 1; again for a name, its kind with what is
 * new. Unknown commands, wrong numbers of words and missing rights are answered in C, as are
 * PING and ECHO, and with _throttle CL.THROTTLE and GCRA. NEAP_ERANGE, or NEAP_EFULL at 128. */
int neap_server_define(struct neap_server *s, const char *name, int arity, uint32_t need);
/* Answer CL.THROTTLE and GCRA from this table, which outlives the server. NULL: hand them up. */
void neap_server_throttle(struct neap_server *s, struct neap_keys *keys);

/* The kinds that say a client is gone, and that it made a request of HTTP: argv is then its verb,
 * its target, its body, and its fields, name and value by turns. It is to be answered with _status
 * and so on before its client's next one, and one that NEAP_HTTP_CLOSES is its client's last: after
 * the answer, _hang_up. What is no request is answered in C, and a client that asks nothing for 60
 * s is gone. */
enum { NEAP_CLOSED = 0, NEAP_REQUEST = -1 };

struct neap_command {
	int64_t client;
	int32_t kind;                  /* from _define, or NEAP_CLOSED, NEAP_REQUEST */
	uint32_t argc;                 /* 1 and more */
	uint32_t allow;                /* the client's rights */
	uint32_t proto;                /* 2 or 3 */
	uint32_t how;                  /* NEAP_REQUEST: NEAP_HTTP_CLOSES.. */
	const char *note;              /* NEAP_CLOSED: why, when that is worth a line in a log */
	struct neap_span argv[256];    /* argv[0] is the name as sent; until the next _next */
};
/* The next command: 1, or 0 when this turn has no more (64 per client, 16,384 in all, so that
 * timers are served; the rest comes next turn, which then does not sleep). A client that is gone
 * says NEAP_CLOSED exactly once, after its last command. Call until 0 after every turn of the
 * loop; replies are sent when the loop goes to sleep, or when _next moves on. */
int neap_server_next(struct neap_server *s, neap_ns now, struct neap_command *out);
/* Where to write a reply: valid until the next _next or turn of the loop, but ask anew after _mute.
 * One that is gone, or asked for silence, has a writer, too, that keeps nothing. */
struct neap_reply *neap_server_reply(struct neap_server *s, int64_t client);
/* The same for what no command asked for, at any time between turns. CLIENT REPLY does not silence
 * it. */
struct neap_reply *neap_server_push(struct neap_server *s, int64_t client);

/* The next ones answer 0, or NEAP_ERANGE when the client is gone or a value is out of range. */

/* Read no further command of this client until _resume; that it hangs up is seen all the same. */
int neap_server_park(struct neap_server *s, int64_t client);
int neap_server_resume(struct neap_server *s, int64_t client);
/* Send what is written (10 s at most), then close. NEAP_CLOSED follows. */
int neap_server_hang_up(struct neap_server *s, int64_t client);
/* Let it in as 'user' (up to 63 bytes) with these rights; or put it out again, as it came. */
int neap_server_login(struct neap_server *s, int64_t client, const char *user, uint32_t allow);
int neap_server_logout(struct neap_server *s, int64_t client);
int neap_server_speak(struct neap_server *s, int64_t client, int proto);   /* 2 or 3 */
enum { NEAP_HEAR = 0, NEAP_MUTE, NEAP_MUTE_ONE };          /* CLIENT REPLY ON, OFF, SKIP */
int neap_server_mute(struct neap_server *s, int64_t client, int how);
/* It listens to so many channels and patterns, from now on: with any it is a subscriber, and may
 * leave NEAP_EVENT_BYTES unfetched; one that speaks HTTP no more than before. */
int neap_server_subscribe(struct neap_server *s, int64_t client, int32_t channels,
			  int32_t patterns);
enum { NEAP_NAME = 0, NEAP_LIB_NAME, NEAP_LIB_VERSION };   /* up to 127, 63 and 63 bytes */
int neap_server_label(struct neap_server *s, int64_t client, int which, const char *text);

struct neap_client {
	int64_t id;
	neap_ns since, last;             /* connected; last command */
	int64_t commands;                /* ever */
	const char *addr, *laddr;        /* the peer's and ours, as in _listen */
	const char *user, *name, *lib_name, *lib_version, *command;   /* "" when not said */
	int32_t fd;
	uint32_t in_bytes, out_bytes;    /* buffered */
	int32_t channels, patterns;      /* that it listens to */
	uint32_t allow;
	uint8_t proto, parked, closing;
	uint8_t admitted;                /* logged in, or let in without */
	uint8_t http;
};
/* Its texts hold until the next call of any neap_server_*. */
int neap_server_client(struct neap_server *s, int64_t client, struct neap_client *out);
/* The oldest client younger than this one, 0 first: walks all of them. 0 at the end. */
int64_t neap_server_after(struct neap_server *s, int64_t client);

struct neap_server_stats {
	int64_t clients, clients_max, parked, subscribers;
	int64_t accepted, refused;       /* ever; refused: over clients_max, or no descriptor */
	int64_t commands, in_bytes, out_bytes;   /* ever */
	int64_t cut;                     /* clients closed by us for what they did, ever */
};
void neap_server_stats(const struct neap_server *s, struct neap_server_stats *out);
/* ==== end of server ==== */
/* ---- cut ---- */
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
