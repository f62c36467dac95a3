//! Membership: coordinator session, registration, metadata image, controller, forwarding.
