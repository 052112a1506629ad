/* SPDX-License-Identifier: MIT */
/* property_backoff.c - backoff against multiplications one by one, in wider numbers, and against
 * windows that are moved until they fit. */
#include "neap.h"
#include "trial.h"

#include <math.h>
#include <string.h>

__extension__ typedef __int128 wide;

static const int64_t MILLION = 1000000;

static neap_ns some_ns(struct dice *d)
{
	return dice_between(d, 0, 9) ? dice_any_size(d, 1, neap_horizon) : dice_between(d, 0, 3);
}

static double share(struct dice *d, double most)
{
	return dice_between(d, 0, 5) ? (double)dice_between(d, 0, 1000) / 1000 * most : 0;
}

static double unit(struct dice *d)
{
	int64_t edge = dice_between(d, 0, 9);
	return edge == 0 ? 0 : edge == 1 ? 1 : (double)dice_between(d, 0, MILLION) / 1e6;
}

static struct neap_backoff any_policy(struct dice *d)
{
	struct neap_backoff b = {
		.curve = (int32_t)dice_between(d, NEAP_CONSTANT, NEAP_EXPONENTIAL),
		.jitter = (int32_t)dice_between(d, NEAP_NO_JITTER, NEAP_DECORRELATED),
		.base_ns = some_ns(d), .step_ns = some_ns(d), .grid_ns = 1,
		.cap_ns = dice_between(d, 0, 5) ? some_ns(d) : neap_horizon,
		.factor = share(d, 4), .low = share(d, 1),
	};
	b.high = b.low + share(d, 4);
	return b;
}

/* Attempt by attempt, in numbers with 64 digits and no overflow: the factor is n / 64. */
static void grows_as_it_says(struct dice *d)
{
	for (int64_t i = trial_ops(20000); i > 0; i--) {
		struct neap_backoff b = any_policy(d);
		int64_t n = dice_between(d, 0, 3) ? dice_between(d, 64, 320) : dice_between(d, 0, 64);
		b.factor = (double)n / 64;
		long double at = b.base_ns, product = b.base_ns;   /* in LINEAR; in EXPONENTIAL */
		for (int attempt = 0; attempt < 70; attempt++) {
			long double exact = b.curve == NEAP_EXPONENTIAL ? product :
					    b.curve == NEAP_LINEAR ? at : b.base_ns;
			exact = exact < b.cap_ns ? exact : b.cap_ns;
			neap_ns is = neap_backoff_curve(&b, attempt);
			int rounded = b.curve == NEAP_EXPONENTIAL && attempt > 0;
			if (fabsl(is - exact) > (rounded ? 0.501L + exact * 0x1p-46L : 0))
				trial_fail("curve %d of %ld + %ld, x%ld/64, cap %ld: attempt %d is %ld, "
					   "not %Lf", b.curve, b.base_ns, b.step_ns, n, b.cap_ns, attempt,
					   is, exact);
			at += b.step_ns;
			product = product < 1e30L ? product * n / 64 : product;
		}
	}
}

/* A million attempts from where it began: any factor, however gentle. */
static void late_attempts_are_right(struct dice *d)
{
	for (int64_t i = trial_ops(20000); i > 0; i--) {
		struct neap_backoff b = any_policy(d);
		b.curve = NEAP_EXPONENTIAL;
		b.factor = 1 + 1 / (double)dice_any_size(d, 1, INT64_C(1) << 24);
		int64_t n = dice_any_size(d, 1, 2 * MILLION);
		long double exact = b.base_ns ? b.base_ns * powl(b.factor, n) : 0;
		exact = exact < b.cap_ns ? exact : b.cap_ns;
		neap_ns is = neap_backoff_curve(&b, n);
		if (fabsl(is - exact) > 1 + exact * (long double)n * 0x1p-52L)
			trial_fail("%ld x%.17g cap %ld: attempt %ld is %ld, not %Lf", b.base_ns, b.factor,
				   b.cap_ns, n, is, exact);
		if (b.factor >= 1 && neap_backoff_curve(&b, n + 1) < is - 1 - (is >> 30))
			trial_fail("it shrinks after %ld", n);
		if (b.base_ns && neap_backoff_curve(&b, INT64_MAX) != b.cap_ns)
			trial_fail("it never reaches its cap");
	}
}

/* The window, moved down in a thousand small steps until half of it is below the cap. */
static void window(const struct neap_backoff *b, neap_ns delay, long double *low, long double *high)
{
	*low = (long double)delay * b->low, *high = (long double)delay * b->high;
	long double step = (*high - *low) / 1024;
	while (*low > 0 && b->cap_ns - *low < 512 * step)
		*low -= step, *high -= step;
	*low = *low > 0 ? *low : 0;
	*low = *low < b->cap_ns ? *low : b->cap_ns;
	*high = *high < b->cap_ns ? *high : b->cap_ns;
}

static void jitter_stays_where_it_belongs(struct dice *d)
{
	for (int64_t i = trial_ops(600000); i > 0; i--) {
		struct neap_backoff b = any_policy(d);
		int64_t attempt = dice_any_size(d, 1, MILLION) - 1;
		neap_ns previous = dice_between(d, 0, 1) ? some_ns(d) : 0;
		double u = unit(d);
		neap_ns delay = neap_backoff_curve(&b, attempt);
		neap_ns is = neap_backoff_delay(&b, attempt, previous, u);
		long double low = delay, high = delay;
		if (b.jitter == NEAP_SPREAD)
			window(&b, delay, &low, &high);
		if (b.jitter == NEAP_DECORRELATED) {
			low = b.base_ns < b.cap_ns ? b.base_ns : b.cap_ns;
			high = previous ? 3.0L * previous : low ? low * powl(3, attempt + 1) : 0;
			high = low == 0 ? 0 : high > b.cap_ns ? b.cap_ns : high > low ? high : low;
		}
		long double off = (high - low) / 400 + 2 + high * 0x1p-48L;
		if (fabsl(is - (low + (high - low) * u)) > off || is < 0 || is > b.cap_ns)
			trial_fail("jitter %d [%g, %g] of %ld, cap %ld, previous %ld, attempt %ld: %g is "
				   "%ld, from %Lf to %Lf", b.jitter, b.low, b.high, delay, b.cap_ns,
				   previous, attempt, u, is, low, high);
	}
}

/* Everybody at the cap: no value is more popular than it should be. */
static void jitter_lives_at_the_cap(struct dice *d)
{
	for (int64_t i = trial_ops(300); i > 0; i--) {
		struct neap_backoff b = any_policy(d);
		struct neap_random r = {dice_throw(d)};
		b.cap_ns = dice_any_size(d, 1000000, neap_horizon);
		b.base_ns = dice_between(d, b.cap_ns / 2, b.cap_ns);
		b.curve = NEAP_EXPONENTIAL, b.factor = 2, b.jitter = NEAP_SPREAD;
		b.high = b.low + 0.1 + share(d, 1);
		if (b.low > 1)
			continue;
		int at_cap = 0, upper = 0;
		long double low, high;
		window(&b, b.cap_ns, &low, &high);
		for (int client = 0; client < 1000; client++) {
			neap_ns is = neap_backoff_delay(&b, 9, 0, neap_random_unit(&r));
			at_cap += is > b.cap_ns - (high - low) / 1000 && b.high > 1;
			upper += is > (low + high) / 2;
		}
		if (at_cap > 15 || upper < 400 || upper > 600)
			trial_fail("[%g, %g]: %d of 1000 wait for all of the cap, %d in the upper half",
				   b.low, b.high, at_cap, upper);
	}
}

static void rounds_to_its_grid(struct dice *d)
{
	for (int64_t i = trial_ops(300000); i > 0; i--) {
		struct neap_backoff b = any_policy(d), fine;
		fine = b;
		b.grid_ns = dice_any_size(d, 1, neap_horizon);
		int64_t attempt = dice_between(d, 0, 40);
		double u = unit(d);
		wide delay = neap_backoff_delay(&fine, attempt, 0, u);
		wide on = (2 * delay + b.grid_ns) / (2 * (wide)b.grid_ns) * b.grid_ns;
		on = on < b.cap_ns ? on : b.cap_ns;
		if (neap_backoff_delay(&b, attempt, 0, u) != on)
			trial_fail("%ld on a grid of %ld is %ld, not %ld", (int64_t)delay, b.grid_ns,
				   neap_backoff_delay(&b, attempt, 0, u), (int64_t)on);
	}
}

/* The numbers of splitmix64 from seed 1234567 are published with it. */
static void draws_are_the_published_ones(struct dice *d)
{
	static const uint64_t published[] = {
		UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
		UINT64_C(9817491932198370423), UINT64_C(4593380528125082431),
		UINT64_C(16408922859458223821),
	};
	struct neap_random r = {1234567};
	for (int i = 0; i < 5; i++)
		if (neap_random_next(&r) != published[i])
			trial_fail("draw %d", i);
	r.state = dice_throw(d);
	double sum = 0;
	for (int i = 0; i < 10000; i++) {
		double u = neap_random_unit(&r);
		if (u < 0 || u >= 1)
			trial_fail("a unit of %g", u);
		sum += u;
	}
	if (sum < 4800 || sum > 5200)
		trial_fail("10000 units are %g", sum);
}

static void nonsense_is_refused(struct dice *d)
{
	struct neap_backoff good = {
		.curve = NEAP_EXPONENTIAL, .jitter = NEAP_SPREAD, .base_ns = 1, .cap_ns = 1,
		.grid_ns = 1, .factor = 2, .high = 1,
	}, b;
	(void)d;
	if (neap_backoff_check(&good) != NEAP_OK)
		trial_fail("a good one is refused");
	for (int i = 0; i < 18; i++) {
		b = good;
		switch (i) {
		case 0: b.curve = NEAP_CONSTANT - 1; break;
		case 1: b.curve = NEAP_EXPONENTIAL + 1; break;
		case 2: b.jitter = NEAP_NO_JITTER - 1; break;
		case 3: b.jitter = NEAP_DECORRELATED + 1; break;
		case 4: b.base_ns = -1; break;
		case 5: b.base_ns = neap_horizon + 1; break;
		case 6: b.cap_ns = -1; break;
		case 7: b.cap_ns = neap_horizon + 1; break;
		case 8: b.grid_ns = 0; break;
		case 9: b.grid_ns = neap_horizon + 1; break;
		case 10: b.factor = -2; break;
		case 11: b.factor = NAN; break;
		case 12: b.factor = INFINITY; break;
		case 13: b.low = -0.1; break;
		case 14: b.low = NAN; break;
		case 15: b.low = 1.1; break;
		case 16: b.high = INFINITY; break;
		case 17: b.curve = NEAP_LINEAR, b.step_ns = -1; break;
		}
		if (neap_backoff_check(&b) != NEAP_ERANGE)
			trial_fail("policy %d", i);
	}
}

int main(void)
{
	trial_run("backoff refuses what makes no sense", nonsense_is_refused);
	trial_run("a curve grows as multiplying one by one says, to its cap", grows_as_it_says);
	trial_run("attempt 10^6 is right, whatever the factor", late_attempts_are_right);
	trial_run("jitter is even over a window below the cap", jitter_stays_where_it_belongs);
	trial_run("at the cap jitter spreads as well as elsewhere", jitter_lives_at_the_cap);
	trial_run("delays are multiples of the grid, half of it up", rounds_to_its_grid);
	trial_run("the generator is splitmix64, and its units are even", draws_are_the_published_ones);
	return trial_verdict();
}
