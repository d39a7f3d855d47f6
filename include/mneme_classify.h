/* mneme_classify.h - classifiers of sequences, fed frame by frame, beside mneme.h, whose rules of errors, ownership and threads hold here, too. */
#ifndef MNEME_CLASSIFY_H
#define MNEME_CLASSIFY_H

#include <mneme.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mn_classifier mn_classifier;

/* The directory of a trained classifier whose input is `frames` (a lmuformer, or a classifier). threads 0: all processors. MN_ERR_CONFIG: another
 * model. */
mn_status mn_classifier_open(const char *dir, int threads, mn_classifier **out);
void mn_classifier_free(mn_classifier *c);
int64_t mn_classifier_classes(const mn_classifier *c);  /* N */
int64_t mn_classifier_channels(const mn_classifier *c); /* C: numbers of a frame */
/* The i-th class's name, as the training kept it; borrowed. NULL: it kept none, or there is no such class. */
const char *mn_classifier_label(const mn_classifier *c, int64_t i);
/* Is it a stream, whose cost of a frame does not depend on how many came before? Another keeps the frames and reads the whole at the end. */
bool mn_classifier_is_stream(const mn_classifier *c);
/* How many frames a stream must have been fed before it says anything; -1: it says nothing before the end. */
int64_t mn_classifier_late(const mn_classifier *c);

/* Feeds n >= 1 frames [n, C], row-major: as lines of numbers are to `mneme classify`, not scaled yet (energies of bands as log10, bytes of pixels),
 * and of a model that was trained on frames as they are, as they are. p (may be NULL) receives the probabilities [N] of what the sequence is as
 * far as it came; MN_ERR_ARG where it is too early for that (mn_classifier_late), or it is no stream: then the frames are fed all the same. */
mn_status mn_classifier_feed(mn_classifier *c, const float *frames, int64_t n, double *p);
int64_t mn_classifier_position(const mn_classifier *c); /* frames of the sequence so far */
/* The probabilities [N] of what the sequence is, if it ends here: a stream may be fed on afterwards. MN_ERR_ARG: no frame was fed. */
mn_status mn_classifier_judge(mn_classifier *c, double *p);
mn_status mn_classifier_reset(mn_classifier *c); /* the next sequence begins */

#ifdef __cplusplus
}
#endif

#endif
