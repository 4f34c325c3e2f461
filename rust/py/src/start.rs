//! What is done once, when the module is made. What PyO3 makes when it is first needed is made here: what is needed late may be
//! needed in the moment of a fork, or when nothing can be imported any more.

#[cfg(feature = "stubs")]
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
#[cfg(feature = "stubs")]
use pyo3::{type_hint_identifier, type_hint_subscript};

use crate::errors::{
    ChannelEmpty, ChannelFull, ForeignChannel, InvalidMessage, LayerClosed, LayerUnavailable,
    MessageTooLarge,
};
use crate::event_loop::{Alarm, Drain, LoopQueue, PipeReader};
use crate::inbox::Raises;
use crate::interpreters;
use crate::receiver::InboxWaiter;

/// The exceptions of the core, as a tuple of the module: so they are imported when it is made. PyO3 imports each when it is first
/// raised, and panics when nothing can be imported any more, as in a destructor at the end of the interpreter.
pub(crate) struct Exceptions;

impl<'py> IntoPyObject<'py> for Exceptions {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;

    #[cfg(feature = "stubs")]
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(
        type_hint_identifier!("collections.abc", "Sequence"),
        type_hint_subscript!(
            type_hint_identifier!("builtins", "type"),
            type_hint_identifier!("builtins", "Exception")
        )
    );

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        // The module is being made. An initialiser of its own would leave its stub incomplete.
        interpreters::claim(py)?;
        make_classes(py);
        py.import("headrace.exceptions")?;
        let exceptions = [
            py.get_type::<ChannelEmpty>(),
            py.get_type::<ChannelFull>(),
            py.get_type::<ForeignChannel>(),
            py.get_type::<InvalidMessage>(),
            py.get_type::<LayerClosed>(),
            py.get_type::<LayerUnavailable>(),
            py.get_type::<MessageTooLarge>(),
        ];
        PyTuple::new(py, exceptions)
    }
}

/// Makes the classes that the module does not show. PyO3 would make each with its first instance, and lets other threads run
/// meanwhile; see [`crate::once`] for what a fork does then.
fn make_classes(py: Python<'_>) {
    py.get_type::<Alarm>();
    py.get_type::<Drain>();
    py.get_type::<InboxWaiter>();
    py.get_type::<LoopQueue>();
    py.get_type::<PipeReader>();
    py.get_type::<Raises>();
}
