// SPDX-License-Identifier: GPL-2.0-only

//! The models, by what must not go wrong. The names of controls begin with `control`.

mod dirty;
mod flush;
mod join;
mod neighbours;
mod publish;
mod top;
