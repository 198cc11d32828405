//! `db.users`, `db.groups`, `db.grants`: who there is and what they may read.

use agnes_core::local::{
    AddMember, AddUser, CreateGrant, CreateGroup, DeleteGroup, GetEffectiveAccess, GetUser, Grants as ListGrants,
    Groups as ListGroups, Members, RemoveMember, RemoveUser, RevokeGrant, SetActive, Users as ListUsers,
};
use agnes_core::rbac::ResourceType;
use pyo3::prelude::*;

use crate::database::Handle;
use crate::errors::OrRaise;

/// The people of a data folder.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Users(pub(crate) Handle);

#[pymethods]
impl Users {
    /// Adds an active user.
    #[pyo3(signature = (email, name=None))]
    fn add(&self, py: Python<'_>, email: String, name: Option<String>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, AddUser { email, name })
    }

    /// Everybody.
    fn list(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, ListUsers {})
    }

    /// One user by id, address or unique prefix.
    fn get(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, GetUser { user })
    }

    /// Lets a user in.
    fn activate(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, SetActive { user, active: true })
    }

    /// Locks a user out.
    fn deactivate(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, SetActive { user, active: false })
    }

    /// Deletes a user.
    fn remove(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, RemoveUser { user })
    }

    /// What a user may use, and through which groups.
    fn access(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, GetEffectiveAccess { user })
    }
}

/// Named sets of people.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Groups(pub(crate) Handle);

#[pymethods]
impl Groups {
    /// Makes a group.
    #[pyo3(signature = (name, description=None))]
    fn create(&self, py: Python<'_>, name: String, description: Option<String>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, CreateGroup { name, description })
    }

    /// Every group.
    fn list(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, ListGroups {})
    }

    /// Deletes a group.
    fn delete(&self, py: Python<'_>, group: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, DeleteGroup { group })
    }

    /// Who is in it.
    fn members(&self, py: Python<'_>, group: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, Members { group })
    }

    /// Adds a user.
    fn add_member(&self, py: Python<'_>, group: String, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, AddMember { group, user })
    }

    /// Takes a user out.
    fn remove_member(&self, py: Python<'_>, group: String, user: String) -> PyResult<()> {
        self.0.ask(py, RemoveMember { group, user }).map(drop)
    }
}

/// What is open to whom.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Grants(pub(crate) Handle);

#[pymethods]
impl Grants {
    /// Opens a resource to a group; a table unless `resource_type` says otherwise.
    #[pyo3(signature = (group, resource_id, *, resource_type="table"))]
    fn add(&self, py: Python<'_>, group: String, resource_id: String, resource_type: &str) -> PyResult<Py<PyAny>> {
        let resource_type = ResourceType::parse(resource_type).or_raise(py)?;
        self.0.ask(py, CreateGrant { group, resource_type, resource_id })
    }

    /// Every grant, or those of one group.
    #[pyo3(signature = (group=None))]
    fn list(&self, py: Python<'_>, group: Option<String>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, ListGrants { group })
    }

    /// Takes a grant back.
    fn revoke(&self, py: Python<'_>, grant: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, RevokeGrant { grant })
    }
}
