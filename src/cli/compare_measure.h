/* compare_measure.h - what `mneme compare --tracks` measures of a trained model, each in a process of its own. */
#ifndef MN_COMPARE_MEASURE_H
#define MN_COMPARE_MEASURE_H

#include "cli/cli.h"
#include "cli/compare_tracks.h"

enum { MN_MEASURED = 24 };
typedef struct mn_measured_list { /* under the names that the run database keeps */
  int n;
  struct {
    char name[88];
    double value; /* NaN: the model cannot be asked this, such as a position beyond the end of its cache */
  } item[MN_MEASURED];
} mn_measured_list;

typedef struct mn_measuring {
  mn_cli *cli;
  const char *label, *model; /* of progress; the directory of the trained model */
  const mn_measure *measure;
} mn_measuring;

/* For mn_compare_child: ctx is an mn_measuring, out an mn_measured_list. The first value is the measure's own and has its title for a
 * name. Of a task, and of verbatim, also TITLE.low and TITLE.high (95 %); of speed, in the place of the first, TITLE@POSITION in microseconds per token for
 * each position, then TITLE.state_bytes and TITLE.limit (tokens of the longest stream, NaN: it never ends). */
mn_status mn_compare_measure(void *ctx, void *out);

#endif
