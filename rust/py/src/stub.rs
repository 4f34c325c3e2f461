//! Values that the stub is to show as something else than their class: what matters of an awaitable is what it gives.

use std::convert::Infallible;
use std::marker::PhantomData;

use pyo3::PyTypeInfo;
#[cfg(feature = "stubs")]
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
#[cfg(feature = "stubs")]
use pyo3::{type_hint_identifier, type_hint_subscript};

/// `Awaitable[dict[str, Any]]`: a waiter of an inbox, or what raises why there is none.
pub(crate) struct NextMessage(pub(crate) Py<PyAny>);

impl<'py> IntoPyObject<'py> for NextMessage {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = Infallible;

    #[cfg(feature = "stubs")]
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(
        type_hint_identifier!("collections.abc", "Awaitable"),
        type_hint_subscript!(
            type_hint_identifier!("builtins", "dict"),
            type_hint_identifier!("builtins", "str"),
            type_hint_identifier!("typing", "Any")
        )
    );

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0.into_bound(py))
    }
}

/// `Generator[Any, None, T]`: what is being awaited, and gives a `T`.
pub(crate) struct StepsTo<'py, T>(Bound<'py, PyAny>, PhantomData<T>);

/// `Generator[Any, None, Any]`: a waiter that is being awaited.
pub(crate) type Steps<'py> = StepsTo<'py, PyAny>;

impl<'py, T> StepsTo<'py, T> {
    pub(crate) fn new<A>(awaited: Bound<'py, A>) -> Self {
        Self(awaited.into_any(), PhantomData)
    }
}

impl<'py, T: PyTypeInfo> IntoPyObject<'py> for StepsTo<'py, T> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = Infallible;

    #[cfg(feature = "stubs")]
    const OUTPUT_TYPE: PyStaticExpr = type_hint_subscript!(
        type_hint_identifier!("collections.abc", "Generator"),
        type_hint_identifier!("typing", "Any"),
        type_hint_identifier!("builtins", "None"),
        T::TYPE_HINT
    );

    fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(self.0)
    }
}
