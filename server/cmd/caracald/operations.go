package main

import (
	"context"

	"caracal.run/management/gen/client"
)

func getPolicy(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error {
	_, err := c.GetPolicy(ctx, zone, id, client.GetPolicyParams{}, opts...)
	return err
}

func getActivationStatus(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error {
	_, err := c.GetActivationStatus(ctx, zone, id, client.GetActivationStatusParams{}, opts...)
	return err
}

// These functions turn methods of the client into listers and operations.

func zoneList[T any](f func(*client.Client, context.Context, string, ...client.ListOption) (client.Page[T], error)) lister {
	return func(ctx context.Context, c *client.Client, zone, _ string, opts ...client.ListOption) (string, error) {
		page, err := f(c, ctx, zone, opts...)
		return page.Next, err
	}
}

func zoneListOf[T any](f func(*client.Client, context.Context, string, string, ...client.ListOption) (client.Page[T], error)) lister {
	return func(ctx context.Context, c *client.Client, zone, id string, opts ...client.ListOption) (string, error) {
		page, err := f(c, ctx, zone, id, opts...)
		return page.Next, err
	}
}

func globalList[T any](f func(*client.Client, context.Context, ...client.ListOption) (client.Page[T], error)) lister {
	return func(ctx context.Context, c *client.Client, _, _ string, opts ...client.ListOption) (string, error) {
		page, err := f(c, ctx, opts...)
		return page.Next, err
	}
}

func zoneGet[T any](f func(*client.Client, context.Context, string, string, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error {
		_, err := f(c, ctx, zone, id, opts...)
		return err
	}
}

func globalGet[T any](f func(*client.Client, context.Context, string, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, _, id string, opts ...client.CallOption) error {
		_, err := f(c, ctx, id, opts...)
		return err
	}
}

// zoneOnly is of an operation that concerns the zone.
func zoneOnly[T any](f func(*client.Client, context.Context, string, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, zone, _ string, opts ...client.CallOption) error {
		_, err := f(c, ctx, zone, opts...)
		return err
	}
}

// noObject is of an operation that concerns no object.
func noObject[T any](f func(*client.Client, context.Context, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, _, _ string, opts ...client.CallOption) error {
		_, err := f(c, ctx, opts...)
		return err
	}
}

func zoneCreate[B, T any](f func(*client.Client, context.Context, string, B, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, zone, _ string, opts ...client.CallOption) error {
		_, err := f(c, ctx, zone, *new(B), opts...)
		return err
	}
}

func globalCreate[B, T any](f func(*client.Client, context.Context, B, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, _, _ string, opts ...client.CallOption) error {
		_, err := f(c, ctx, *new(B), opts...)
		return err
	}
}

func zoneUpdate[B, T any](f func(*client.Client, context.Context, string, string, B, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error {
		_, err := f(c, ctx, zone, id, *new(B), opts...)
		return err
	}
}

func globalUpdate[B, T any](f func(*client.Client, context.Context, string, B, ...client.CallOption) (T, error)) operation {
	return func(ctx context.Context, c *client.Client, _, id string, opts ...client.CallOption) error {
		_, err := f(c, ctx, id, *new(B), opts...)
		return err
	}
}

func zoneDelete(f func(*client.Client, context.Context, string, string, ...client.CallOption) error) operation {
	return func(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error {
		return f(c, ctx, zone, id, opts...)
	}
}

func globalDelete(f func(*client.Client, context.Context, string, ...client.CallOption) error) operation {
	return func(ctx context.Context, c *client.Client, _, id string, opts ...client.CallOption) error {
		return f(c, ctx, id, opts...)
	}
}
