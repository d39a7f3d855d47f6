/* claim.h - files that one process at a time works with: who has a claim on one keeps all others away from it.
 *
 * A claim is a lock (flock) on a small file beside it, .mneme-NAME.lock, which goes when the claim does. The system takes the lock from a process
 * that was killed; the file that it leaves holds nobody up, and goes with the next claim or the next file that is written there (output.h). */
#ifndef MN_CLAIM_H
#define MN_CLAIM_H

#include "base/base.h"

typedef struct mn_claim mn_claim;

/* MN_ERR_CONFIG: another process has it, or another claim of this one. MN_ERR_IO: no file can be made there. Its directory must be there; the file
 * itself need not. On a file system that has no locks the claim keeps nobody away. */
mn_status mn_claim_take(const char *path, mn_claim **out);
void mn_claim_leave(mn_claim *c);        /* may be NULL */
bool mn_claim_is_lock(const char *name); /* is `name`, without directory, what such a file is called? */

/* ---- a lock with a name ---- */
typedef enum mn_lock_state { MN_LOCK_MINE, MN_LOCK_OTHERS, MN_LOCK_NONE } mn_lock_state; /* NONE: the file system has no locks */
/* Makes the file `name` in an open directory, which messages call `where`, and locks it. A link in its place is unlinked; what is no file is
 * refused. *fd: to be closed after the file was unlinked; -1 unless the lock is mine. */
mn_status mn_lock_take(int dir, const char *where, const char *name, int *fd, mn_lock_state *state);

#endif
