//! `db.users`, `db.groups`, `db.grants`, `db.policies`: who there is and what they may read.

use agnes_core::local::{
    AddMember, AddUser, CreateGrant, CreateGroup, DeleteGroup, GetEffectiveAccess, GetUser, Grants as ListGrants,
    Groups as ListGroups, InviteUser, Members, RemoveMember, RemoveUser, RevokeGrant, SetActive, Users as ListUsers,
};
use agnes_core::local::{
    CheckPolicies, CreatePolicy, GetPolicy, ListPolicies, PolicyHistory, PreviewAccess, RemovePolicy, UpdatePolicy,
};
use agnes_core::policy::AccessChange;
use agnes_core::rbac::ResourceType;
use pyo3::prelude::*;

use crate::convert::from_python;
use crate::errors::OrRaise;
use crate::handle::Handle;

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
        self.0.ask_shown(py, ListUsers {}, "Records")
    }

    /// One user by id, address or unique prefix.
    fn get(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, GetUser { user })
    }

    /// A link with which a user sets their first password, good for 7 days.
    fn invite(&self, py: Python<'_>, user: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, InviteUser { user })
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
        self.0.ask_shown(py, ListGroups {}, "Records")
    }

    /// Deletes a group.
    fn delete(&self, py: Python<'_>, group: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, DeleteGroup { group })
    }

    /// Who is in it.
    fn members(&self, py: Python<'_>, group: String) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, Members { group }, "Records")
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
        self.0.ask_shown(py, ListGrants { group }, "Records")
    }

    /// Takes a grant back.
    fn revoke(&self, py: Python<'_>, grant: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, RevokeGrant { grant })
    }
}

/// What groups see of the tables they may read.
#[pyclass(frozen, module = "agnes")]
pub(crate) struct Policies(pub(crate) Handle);

#[pymethods]
impl Policies {
    /// Narrows what a group sees of a table.
    fn create(&self, py: Python<'_>, group: String, table: String, rules: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let rules = from_python(rules)?;
        self.0.ask(py, CreatePolicy { group, table, rules })
    }

    /// Every policy, or those of one table or group.
    #[pyo3(signature = (*, table=None, group=None))]
    fn list(&self, py: Python<'_>, table: Option<String>, group: Option<String>) -> PyResult<Py<PyAny>> {
        self.0.ask_shown(py, ListPolicies { table, group }, "Records")
    }

    /// One policy.
    fn get(&self, py: Python<'_>, policy: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, GetPolicy { policy })
    }

    /// What a policy said, newest first.
    fn history(&self, py: Python<'_>, policy: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, PolicyHistory { policy })
    }

    /// Gives a policy other rules, whole.
    #[pyo3(signature = (policy, rules, *, expected_version=None))]
    fn update(
        &self,
        py: Python<'_>,
        policy: String,
        rules: &Bound<'_, PyAny>,
        expected_version: Option<u32>,
    ) -> PyResult<Py<PyAny>> {
        let rules = from_python(rules)?;
        self.0.ask(py, UpdatePolicy { policy, rules, expected: expected_version })
    }

    /// Removes a policy.
    fn remove(&self, py: Python<'_>, policy: String) -> PyResult<Py<PyAny>> {
        self.0.ask(py, RemovePolicy { policy })
    }

    /// Tries policies on the data as it is now: one, or all.
    #[pyo3(signature = (policy=None))]
    fn check(&self, py: Python<'_>, policy: Option<String>) -> PyResult<Py<PyAny>> {
        self.0.ask(py, CheckPolicies { policy })
    }

    /// Who would gain or lose what if this policy were made.
    fn preview(&self, py: Python<'_>, group: String, table: String, rules: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let rules = from_python(rules)?;
        self.0.ask(py, PreviewAccess { change: AccessChange::CreatePolicy { group, table, rules } })
    }
}
