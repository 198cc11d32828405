//! Verbs about people and what they may see.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connector::Progress;
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::identity::{
    AccessRequest, Approval, ApprovalPreview, BreakGlass, EffectiveAccess, GrantRow, GroupRow, MemberRow, NewUser,
    PasswordLink, PendingRequest, PeopleFilter, Person, TokenRow, User,
};
use crate::local::Verb;
use crate::policy::{AccessChange, AccessPreview, Policy, PolicyCheck, PolicyRow, PolicyRules, PolicyVersion};
use crate::rbac::{Grant, Group, Member, ResourceType};
use crate::secret::Secret;

verbs! {
    /// Adds an active user.
    AddUser("identity.add_user") {
        /// Address.
        email: String,
        /// For people.
        name: Option<String>,
    } -> User = |engine, ctx, _progress| engine.identity().add_user(ctx, &email, name.as_deref());

    /// Adds an active user to groups, and makes a link for their first password.
    CreateUser("identity.create_user") {
        /// The user.
        new: NewUser,
    } -> (User, Option<PasswordLink>) = |engine, ctx, _progress| async {
        let (user, letter) = engine.identity().create_user(ctx, &new).await?;
        Ok((user, letter.map(PasswordLink::from)))
    };

    /// A link with which a user sets their first password.
    InviteUser("identity.invite") {
        /// Id, address or unique prefix.
        user: String,
    } -> PasswordLink = |engine, ctx, _progress| async { Ok(engine.identity().invite(ctx, &user).await?.into()) };

    /// A link with which a user sets a new password.
    ResetPassword("identity.reset_link") {
        /// Id, address or unique prefix.
        user: String,
    } -> PasswordLink = |engine, ctx, _progress| async { Ok(engine.identity().reset_link(ctx, &user).await?.into()) };

    /// Sets a user's password; their sessions end.
    SetPassword("identity.set_password") {
        /// Id, address or unique prefix.
        user: String,
        /// The password.
        #[serde(with = "crate::identity::shown_once")]
        password: Secret,
        /// Whether the next sign-in asks for another one.
        must_change: bool,
    } -> () = |engine, ctx, _progress| engine.identity().set_password(ctx, &user, &password, must_change);

    /// Lists people with their groups.
    People("identity.people") {
        /// Which.
        filter: PeopleFilter,
    } -> Vec<Person> = |engine, ctx, _progress| engine.identity().people(ctx, &filter);

    /// One person with their groups.
    ShowPerson("identity.show_person") {
        /// Id, address or unique prefix.
        user: String,
    } -> Person = |engine, ctx, _progress| engine.identity().show_person(ctx, &user);

    /// Lists everybody's tokens, newest first.
    AllTokens("tokens.list_all") {} -> Vec<TokenRow> = |engine, ctx, _progress| engine.tokens().list_all(ctx, usize::MAX, 0);

    /// Revokes somebody's token.
    RevokeToken("tokens.revoke_any") {
        /// Its id or a unique prefix of it.
        token: String,
    } -> TokenRow = |engine, ctx, _progress| async {
        let found = engine.tokens().find(ctx, &token).await?;
        engine.tokens().revoke_any(ctx, &found.id).await?;
        Ok(found)
    };

    /// Lists requests for access that wait for an answer, newest first.
    PendingRequests("access_requests.pending") {
        /// At most this many.
        limit: usize,
    } -> Vec<PendingRequest> = |engine, ctx, _progress| async {
        Ok(engine.access_requests().pending(ctx, limit, 0).await?.0)
    };

    /// What approving a request would do.
    PreviewApproval("access_requests.preview") {
        /// Its id or a unique prefix of it.
        request: String,
        /// Id, name or unique prefix.
        group: String,
    } -> ApprovalPreview = |engine, ctx, _progress| async {
        let found = engine.access_requests().find_waiting(ctx, &request).await?;
        engine.access_requests().preview(ctx, &found.id, &group).await
    };

    /// Approves a request for access.
    ApproveRequest("access_requests.approve") {
        /// Its id or a unique prefix of it.
        request: String,
        /// Id, name or unique prefix.
        group: String,
        /// Words for who asks.
        note: Option<String>,
    } -> (AccessRequest, Approval) = |engine, ctx, _progress| async {
        let found = engine.access_requests().find_waiting(ctx, &request).await?;
        engine.access_requests().approve(ctx, &found.id, &group, note.as_deref()).await
    };

    /// Refuses a request for access.
    DenyRequest("access_requests.deny") {
        /// Its id or a unique prefix of it.
        request: String,
        /// Words for who asks.
        note: Option<String>,
    } -> AccessRequest = |engine, ctx, _progress| async {
        let found = engine.access_requests().find_waiting(ctx, &request).await?;
        engine.access_requests().deny(ctx, &found.id, note.as_deref()).await
    };

    /// Makes an address an active Admin, whoever it is; for the owner of the data folder.
    MakeAdmin("identity.break_glass") {
        /// Address.
        email: String,
    } -> BreakGlass = |engine, ctx, _progress| engine.identity().break_glass(ctx, &email);

    /// Lists the users.
    Users("identity.users") {} -> Vec<User> = |engine, ctx, _progress| engine.identity().users(ctx);

    /// Finds one user.
    GetUser("identity.user") {
        /// Id, address or unique prefix.
        user: String,
    } -> User = |engine, ctx, _progress| engine.identity().user(ctx, &user);

    /// Lets a user in or locks them out.
    SetActive("identity.set_active") {
        /// Id, address or unique prefix.
        user: String,
        /// In or out.
        active: bool,
    } -> User = |engine, ctx, _progress| engine.identity().set_active(ctx, &user, active);

    /// Deletes a user.
    RemoveUser("identity.remove_user") {
        /// Id, address or unique prefix.
        user: String,
    } -> User = |engine, ctx, _progress| engine.identity().remove_user(ctx, &user);

    /// What a user may use, and through which group.
    GetEffectiveAccess("identity.effective_access") {
        /// Id, address or unique prefix.
        user: String,
    } -> EffectiveAccess = |engine, ctx, _progress| engine.identity().effective_access(ctx, &user);

    /// Makes a group.
    CreateGroup("identity.create_group") {
        /// Its name.
        name: String,
        /// For people.
        description: Option<String>,
    } -> Group = |engine, ctx, _progress| engine.identity().create_group(ctx, &name, description.as_deref());

    /// Lists the groups.
    Groups("identity.groups") {} -> Vec<GroupRow> = |engine, ctx, _progress| engine.identity().groups(ctx);

    /// Deletes a group.
    DeleteGroup("identity.delete_group") {
        /// Id, name or unique prefix.
        group: String,
    } -> Group = |engine, ctx, _progress| engine.identity().delete_group(ctx, &group);

    /// Lists the members of a group.
    Members("identity.members") {
        /// Id, name or unique prefix.
        group: String,
    } -> Vec<MemberRow> = |engine, ctx, _progress| engine.identity().members(ctx, &group);

    /// Adds a user to a group.
    AddMember("identity.add_member") {
        /// Id, name or unique prefix.
        group: String,
        /// Id, address or unique prefix.
        user: String,
    } -> Member = |engine, ctx, _progress| engine.identity().add_member(ctx, &group, &user);

    /// Takes a user out of a group.
    RemoveMember("identity.remove_member") {
        /// Id, name or unique prefix.
        group: String,
        /// Id, address or unique prefix.
        user: String,
    } -> () = |engine, ctx, _progress| engine.identity().remove_member(ctx, &group, &user);

    /// Lists the grants, or those of one group.
    Grants("identity.grants") {
        /// Id, name or unique prefix.
        group: Option<String>,
    } -> Vec<GrantRow> = |engine, ctx, _progress| engine.identity().grants(ctx, group.as_deref());

    /// Opens a resource to a group.
    CreateGrant("identity.grant") {
        /// Id, name or unique prefix.
        group: String,
        /// Which kind of resource.
        resource_type: ResourceType,
        /// Which resource.
        resource_id: String,
    } -> GrantRow = |engine, ctx, _progress| engine.identity().grant(ctx, &group, resource_type, &resource_id);

    /// Closes it again.
    RevokeGrant("identity.revoke") {
        /// The grant's id or a unique prefix of it.
        grant: String,
    } -> Grant = |engine, ctx, _progress| engine.identity().revoke(ctx, &grant);

    /// Narrows what a group sees of a table.
    CreatePolicy("policies.create") {
        /// Id, name or unique prefix.
        group: String,
        /// Id or name.
        table: String,
        /// What it says.
        rules: PolicyRules,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().create(ctx, &group, &table, rules);

    /// Lists the policies, or those of one table or group.
    ListPolicies("policies.list") {
        /// Id or name.
        table: Option<String>,
        /// Id, name or unique prefix.
        group: Option<String>,
    } -> Vec<PolicyRow> = |engine, ctx, _progress| engine.policies().list(ctx, table.as_deref(), group.as_deref());

    /// One policy.
    GetPolicy("policies.get") {
        /// Id or unique prefix.
        policy: String,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().get(ctx, &policy);

    /// What a policy said, newest first.
    PolicyHistory("policies.history") {
        /// Id or unique prefix.
        policy: String,
    } -> Vec<PolicyVersion> = |engine, ctx, _progress| engine.policies().history(ctx, &policy);

    /// Gives a policy other rules.
    UpdatePolicy("policies.update") {
        /// Id or unique prefix.
        policy: String,
        /// What it says, whole.
        rules: PolicyRules,
        /// The version that the change was made from.
        expected: Option<u32>,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().update(ctx, &policy, rules, expected);

    /// Removes a policy.
    RemovePolicy("policies.remove") {
        /// Id or unique prefix.
        policy: String,
    } -> Policy = |engine, ctx, _progress| engine.policies().remove(ctx, &policy);

    /// Tries policies on the data as it is now.
    CheckPolicies("policies.check") {
        /// Id or unique prefix; all without one.
        policy: Option<String>,
    } -> Vec<PolicyCheck> = |engine, ctx, _progress| engine.policies().check(ctx, policy.as_deref());

    /// Who would gain or lose what by a change of access.
    PreviewAccess("policies.preview") {
        /// The change; it is not made.
        change: AccessChange,
    } -> AccessPreview = |engine, ctx, _progress| engine.policies().preview(ctx, change);
}
