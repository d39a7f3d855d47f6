/* loss_watch.c - see loss_watch.h. */
#include "train/loss_watch.h"

#include <math.h>

enum { LOOK = 16, RECENT = 50, LONG = 100 };

double mn_loss_watch_bar(const mn_loss_watch *w) { return w->first + fmax(fmax(w->first - w->low, 20 * w->spread), 0.5 * fabs(w->first)); }

bool mn_loss_watch_add(mn_loss_watch *w, double loss) {
  double change = fabs(loss - w->last);
  w->last = loss;
  if (w->seen++ == 0) {
    w->first = w->mean = w->low = loss;
    w->spread = 0;
    return false;
  }
  w->mean += (loss - w->mean) / (double)(w->seen < RECENT ? w->seen : RECENT);
  w->low = fmin(w->low, w->mean);
  if (w->seen <= LOOK) {
    w->spread += (change - w->spread) / (double)(w->seen - 1);
    return false;
  }
  /* one jump says little about what is usual */
  if (w->spread > 0) change = fmin(change, 5 * w->spread);
  w->spread += (change - w->spread) / LONG;
  return w->mean > mn_loss_watch_bar(w);
}
