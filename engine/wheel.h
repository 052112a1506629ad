/* SPDX-License-Identifier: MIT */
/* wheel.h - what the wheel can do besides what neap.h says. Private to ring 1. */
#ifndef NEAP_WHEEL_H
#define NEAP_WHEEL_H

#include "neap.h"

/* Timer 'id' will be set soon: fetch its memory meanwhile. */
void neap_wheel_expect(const struct neap_wheel *w, uint32_t id);
/* When timer 'id' is due; neap_never when it is not set. */
neap_ns neap_wheel_due(const struct neap_wheel *w, uint32_t id);
/* After a pop that answered a timer due at 'due': the next one due by that instant, or -1. */
int64_t neap_wheel_pop_more(struct neap_wheel *w, neap_ns due);

#endif
