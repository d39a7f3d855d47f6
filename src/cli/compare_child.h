/* compare_child.h - a piece of work in a process of its own: its peak memory is its own, and what ends it ends nothing else. */
#ifndef MN_COMPARE_CHILD_H
#define MN_COMPARE_CHILD_H

#include "base/base.h"

enum { MN_CHILD_RESULT = 2600 }; /* bytes that a result may have */

/* Runs work(ctx, out) in a child and gives what it wrote into out[size]. `name` begins every message. Interrupted, the child is asked
 * to end, and its own status comes back: MN_ERR_CANCELLED. A child that is killed or ends without a word is a failure that says so. */
mn_status mn_compare_child(const char *name, mn_status (*work)(void *ctx, void *out), void *ctx, void *out, size_t size);

#endif
