/* SPDX-License-Identifier: MIT */
/* loop.h - the libev loop inside, for those who watch sockets on it. Private to ring 2. */
#ifndef NEAP_LOOP_H
#define NEAP_LOOP_H

#include "neap.h"

struct ev_loop;

struct ev_loop *neap_loop_ev(struct neap_loop *l);

#endif
