/* loss_watch.h - does a loss run away? Judged by its own history alone, so that any loss can be watched: negative, starting low,
 * or of one stage after another (a new stage begins with a watch of zeros). */
#ifndef MN_LOSS_WATCH_H
#define MN_LOSS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mn_loss_watch { /* all zeros: nothing seen. Part of a checkpoint: a run that goes on is judged as if it had not ended */
  int64_t seen;
  double first, last; /* losses                                                 */
  double mean;        /* of about the last 50                                   */
  double low;         /* lowest mean so far                                     */
  double spread;      /* how far two neighbours usually lie apart               */
} mn_loss_watch;

/* Takes the next loss, which is finite. True: it runs away, its mean is above mn_loss_watch_bar(). The first 16 are only looked
 * at. */
bool mn_loss_watch_add(mn_loss_watch *w, double loss);
/* Where it began, and above that the largest of: how far it has ever fallen, 20 usual changes, half of where it began. */
double mn_loss_watch_bar(const mn_loss_watch *w);

#endif
