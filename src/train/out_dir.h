/* out_dir.h - the directory that a training leaves its result in: made, locked, and tried before any work; still the same one
 * when something is saved; and as it was before when nothing was kept. */
#ifndef MN_OUT_DIR_H
#define MN_OUT_DIR_H

#include "base/base.h"
#include "train/recipe.h"

typedef struct mn_out_dir mn_out_dir;

/* Makes the directory where it is missing, keeps other processes out of it, removes what killed ones left, and tries every
 * file that a training writes there. `path` may be a link to a directory: that is the user's choice. Where another process has it, one that
 * goes on with what is there waits some seconds for its end, and says so. */
mn_status mn_out_dir_open(const char *path, bool goes_on, mn_out_dir **out);
/* MN_ERR_CONFIG when a trained model stands at `path`, whoever made it, or a file that another program wrote and a training would replace:
 * something new belongs elsewhere. */
mn_status mn_out_dir_fresh(const char *path);
/* MN_ERR_CONFIG when anything stands at `path` that belongs to one model or one training, finished or not: what holds several of them is another
 * directory. */
mn_status mn_out_dir_bare(const char *path);
/* Is this a name that a training gives to what it leaves in its directory? */
bool mn_out_dir_uses(const char *name);
/* MN_ERR_CONFIG when there is a file that we did not write: of JSON, ours have checksums. */
mn_status mn_out_dir_own_json(const char *file);
/* MN_ERR_CONFIG when what a training writes into the directory would take the place of `read`. */
mn_status mn_out_dir_spares(const char *path, const char *read);
/* The same for every file that a recipe names: data, tokenizers and models are read. */
mn_status mn_out_dir_spares_data(const char *path, const mn_recipe *recipe);
/* Is there room for `bytes` more? */
mn_status mn_out_dir_room(const mn_out_dir *d, uint64_t bytes);
/* Is the directory at `path` still the one that was opened? One that was removed is made and locked again, and *made_again
 * says so; when another one stands there, nothing is touched and MN_ERR_IO says what happened. */
mn_status mn_out_dir_still(mn_out_dir *d, bool *made_again);
/* Lets others in; takes the directories away that were made for this and hold nothing. NULL is fine. */
void mn_out_dir_close(mn_out_dir *d);

#endif
