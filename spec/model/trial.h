/* SPDX-License-Identifier: MIT */
/* trial.h - what the C tests share: dice that can be thrown again, and a verdict.
 *
 * A test program is a list of trials, each a sentence and a function. A trial ends by returning or
 * at the first trial_fail, and then the next one begins. Its dice depend on the seed and its own
 * sentence only, so a failure is replayed alone or among others:
 *
 *     NEAP_SEED=n      the seed a failed trial printed; spec/run sets it. A fresh one where nobody does
 *     NEAP_OPS=n       how hard to try: 10,000,000 is what the suite does
 *     NEAP_SECONDS=n   how long the tests with real threads last, 1 in the suite
 */
#ifndef TRIAL_H
#define TRIAL_H

#include <stdint.h>

struct dice { uint64_t state; };

/* A number from 0 to 2^64 - 1; from low to high; and one whose number of digits is as random as
 * they are, so that 3 and 3,000,000,000 come equally often. 1 <= low <= high for the last. */
uint64_t dice_throw(struct dice *d);
int64_t dice_between(struct dice *d, int64_t low, int64_t high);
int64_t dice_any_size(struct dice *d, int64_t low, int64_t high);

void trial_run(const char *sentence, void (*body)(struct dice *d));
_Noreturn void trial_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How many steps are as hard as 'usual' of them are in the suite. */
int64_t trial_ops(int64_t usual);
double trial_seconds(void);
/* main's last word: its exit status. */
int trial_verdict(void);

#endif
