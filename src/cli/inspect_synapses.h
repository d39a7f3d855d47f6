/* inspect_synapses.h - what `mneme inspect MODEL --synapses FILE` says: how synapses (mixers of type synaptic) behave while a text is read. */
#ifndef MN_INSPECT_SYNAPSES_H
#define MN_INSPECT_SYNAPSES_H

#include "cli/cli.h"

/* Of the model that the first word of the command line names and the file of its option `synapses`, of which the first `tokens` are read.
 * MN_ERR_CONFIG where nothing in the model changes while it reads. */
mn_status mn_inspect_synapses(mn_cli *cli, int64_t tokens);

#endif
