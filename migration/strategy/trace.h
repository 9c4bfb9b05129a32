#include "trace/trace-migration_strategy.h"
