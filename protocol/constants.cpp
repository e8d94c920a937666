#include "protocol/constants.hpp"
