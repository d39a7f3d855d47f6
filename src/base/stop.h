/* stop.h - what must end whole looks at no stop flag: what saves a training that was told to stop, above all. */
#ifndef MN_STOP_H
#define MN_STOP_H

#include "base/base.h"

/* This thread's flag becomes `flag`; the one that it was, for putting it back. */
const volatile sig_atomic_t *mn_stop_swap(const volatile sig_atomic_t *flag);

#endif
